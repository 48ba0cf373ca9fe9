//! The context of a trace as it crosses from one program to the next: `traceparent` and `tracestate` of W3C, and the
//! form that tunnels of the reference have in `cf-trace-id`. Bytes of strangers; what does not fit is no context.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub(crate) [u8; 16]);

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub(crate) [u8; 8]);

/// Which span a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    pub span: SpanId,
    pub is_sampled: bool,
    /// The id of the trace was made of random numbers (Level 2).
    pub is_random: bool,
}

/// What others on the way keep with a trace, theirs word for word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState(String);

impl TraceId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u128(1..).to_be_bytes())
    }
}

impl SpanId {
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(1..).to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Context {
    /// That of a head, with what is kept beside it. Two of them are none, for nobody knows which is meant.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<(Self, TraceState)> {
        let context = Self::parse(only(headers, &TRACEPARENT)?)?;
        Some((context, TraceState::of(headers)))
    }

    /// `00-TRACE-SPAN-FLAGS`. A newer version may say more behind it.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let [version, trace, span, flags] = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
        if [known[2], known[35], known[52]] != *b"---" {
            return None;
        }
        let version = number(version)?;
        let is_whole = more.is_empty() || (version > 0 && more[0] == b'-');
        if version == 0xff || !is_whole {
            return None;
        }
        let flags = number(flags)?;
        let trace = TraceId(bytes(trace)?);
        let span = SpanId(bytes(span)?);
        let is_set = trace.0 != [0; 16] && span.0 != [0; 8];
        is_set.then_some(Self {
            trace,
            span,
            is_sampled: flags & SAMPLED != 0,
            is_random: flags & RANDOM != 0,
        })
    }

    /// That of `cf-trace-id`, which edges alone put there: `TRACE:SPAN:PARENT:FLAGS`, without zeros in front.
    #[must_use]
    pub fn of_edge(headers: &HeaderMap) -> Option<Self> {
        let text = str::from_utf8(only(headers, &CF_TRACE_ID)?).ok()?;
        let mut parts = text.split(':');
        let (Some(trace), Some(span), Some(_), Some(flags), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let is_hex = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self {
            trace: TraceId(trace.to_be_bytes()),
            span: SpanId(span.to_be_bytes()),
            is_sampled: flags & SAMPLED != 0,
            is_random: false,
        })
    }

    /// As `traceparent`.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let flags = if self.is_sampled { SAMPLED } else { 0 } | if self.is_random { RANDOM } else { 0 };
        value(&format!("00-{}-{}-{flags:02x}", self.trace, self.span))
    }

    /// As `cf-trace-id`.
    #[must_use]
    pub fn edge_header(&self) -> HeaderValue {
        value(&format!("{}:{}:0:{}", self.trace, self.span, u8::from(self.is_sampled)))
    }

    /// Says it to whoever gets this head, in the place of what it said before.
    pub fn put(&self, headers: &mut HeaderMap, state: &TraceState) {
        headers.insert(TRACEPARENT, self.header());
        match state.header() {
            Some(state) => drop(headers.insert(TRACESTATE, state)),
            None => drop(headers.remove(TRACESTATE)),
        }
    }

    /// The same, in the form that connectors know as well.
    pub fn put_for_host(&self, headers: &mut HeaderMap, state: &TraceState) {
        self.put(headers, state);
        headers.insert(CF_TRACE_ID, self.edge_header());
    }

    /// Takes away what is said between edge and host alone.
    pub fn cut(headers: &mut HeaderMap) {
        headers.remove(CF_TRACE_ID);
    }
}

impl TraceState {
    /// The members of a head that are some, as far as there is room. One that is wrong takes the others with it: what
    /// stands beside it may be a part of it.
    fn of(headers: &HeaderMap) -> Self {
        let mut state = String::new();
        let mut count = 0;
        for line in headers.get_all(&TRACESTATE) {
            let Ok(line) = line.to_str() else { return Self::default() };
            for member in line.split(',').map(|member| member.trim_matches([' ', '\t'])) {
                if member.is_empty() {
                    continue;
                }
                let Some(key) = key(member) else { return Self::default() };
                let is_known = state.split(',').any(|known| known.split('=').next() == Some(key));
                if is_known || count >= MOST_MEMBERS {
                    return Self::default();
                }
                count += 1;
                if state.len() + member.len() < LONGEST_STATE {
                    if !state.is_empty() {
                        state.push(',');
                    }
                    state.push_str(member);
                }
            }
        }
        Self(state)
    }

    /// With a member of ours in front: which of our spans others came from.
    #[must_use]
    pub(crate) fn led_by(&self, span: SpanId) -> Self {
        let mut state = format!("{OWN}={span}");
        let mut count = 1;
        for member in self.0.split(',').filter(|member| key(member).is_some_and(|key| key != OWN)) {
            if count < MOST_MEMBERS && state.len() + member.len() < LONGEST_STATE {
                count += 1;
                state.push(',');
                state.push_str(member);
            }
        }
        Self(state)
    }

    #[must_use]
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok().filter(|value| !value.is_empty())
    }
}

/// The key of a member that is one.
fn key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_of_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_key = begins && key.len() <= LONGEST_KEY && key.bytes().all(is_of_key);
    let is_of_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    let is_value = (1..=LONGEST_KEY).contains(&value.len()) && value.bytes().all(is_of_value);
    (is_key && is_value).then_some(key)
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Two digits in lower case, as the standard wants them.
fn number(digits: &[u8]) -> Option<u8> {
    let [number] = bytes::<1>(digits)?;
    Some(number)
}

fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits, `-` and `:` are a header value")
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const CF_TRACE_ID: HeaderName = HeaderName::from_static("cf-trace-id");
/// Characters of a `traceparent`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;
/// Our member's key.
const OWN: &str = "adit";
/// Members of a `tracestate`, its characters, and those of a key or a value.
const MOST_MEMBERS: usize = 32;
const LONGEST_STATE: usize = 512;
const LONGEST_KEY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(lines: &[(&'static str, &[u8])]) -> Option<(Context, TraceState)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        Context::of(&headers)
    }

    #[test]
    fn a_context_goes_on_as_it_came_and_what_is_none_is_not_taken_for_one() {
        let (context, state) = of(&[("traceparent", GOOD.as_bytes())]).unwrap();
        assert_eq!((context.header().to_str().unwrap(), state.text()), (GOOD, ""));
        assert!(context.is_sampled && !context.is_random);
        // A newer version may say more.
        assert!(of(&[("traceparent", format!("01{}-more", &GOOD[2..]).as_bytes())]).is_some());
        let upper = GOOD.to_uppercase();
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let long = "x".repeat(100_000);
        for wrong in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!("01{}x", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &upper,
            &zero_trace,
            &zero_span,
            &GOOD.replace('-', "_"),
            &GOOD.replace("4b", "zz"),
            &long,
        ] {
            assert_eq!(of(&[("traceparent", wrong.as_bytes())]), None, "{wrong:.80}");
        }
        assert_eq!(
            of(&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\u{e9}".as_bytes())]),
            None
        );
        assert_eq!(of(&[("traceparent", GOOD.as_bytes()), ("traceparent", GOOD.as_bytes())]), None);
    }

    #[test]
    fn what_others_keep_has_an_end_and_what_is_wrong_is_not_passed_on() {
        let with = |lines: &[&[u8]]| {
            let mut all = vec![("traceparent", GOOD.as_bytes())];
            all.extend(lines.iter().map(|line| ("tracestate", *line)));
            of(&all).unwrap().1
        };
        assert_eq!(with(&[b"a=1,\tb@c=2 ,,", b"d=x y"]).text(), "a=1,b@c=2,d=x y");
        let span = SpanId([1; 8]);
        assert_eq!(with(&[b"a=1,adit=old"]).led_by(span).text(), "adit=0101010101010101,a=1");
        for wrong in
            [&b"a"[..], b"a=", b"=1", b"A=1", b"a=1,a=2", b"a=1=2", b"a=\xc3\xa9", b"-a=1", b"a=1,b\t=2"]
        {
            assert_eq!(with(&[wrong]).text(), "", "{}", String::from_utf8_lossy(wrong));
        }
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=1")).collect();
        assert_eq!(with(&[many.join(",").as_bytes()]).text(), "");
        let most = many[..32].join(",");
        let state = with(&[most.as_bytes()]);
        assert_eq!(state.text(), most);
        assert_eq!(state.led_by(span).text().split(',').count(), 32);
        let long: Vec<String> = (0..30).map(|number| format!("k{number}={}", "v".repeat(200))).collect();
        for state in [with(&[long.join(",").as_bytes()]), with(&[long.join(",").as_bytes()]).led_by(span)] {
            assert!(state.text().len() <= LONGEST_STATE && state.text().contains("k0="), "{}", state.text());
        }
    }

    #[test]
    fn what_an_edge_says_is_read_in_the_form_of_the_reference() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CF_TRACE_ID, HeaderValue::from_static(text));
            Context::of_edge(&headers)
        };
        let context = of("f92f3577b34da6a3ce929d0e0e4736:67aa0ba902b7:0:1").unwrap();
        assert_eq!(context.header(), "00-00f92f3577b34da6a3ce929d0e0e4736-000067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        context.put_for_host(&mut headers, &TraceState::default());
        assert_eq!(Context::of_edge(&headers), Some(context));
        for wrong in
            ["", ":::", "1:2:3", "1:2:3:4:5", "0:1:0:1", "1:0:0:1", "1:+1:0:1", "x:1:0:1", "1:1:0:100"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
