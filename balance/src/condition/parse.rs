//! From words to a condition. `not` binds closest, then `and`, `xor` and `or`; each has a sign of C too.

use std::net::IpAddr;

use regex::bytes::{Regex, RegexBuilder};

use super::test::{Check, Compare, Kind, List, Pick, Source, Test};
use super::token::{Token, Tokens};
use super::{Condition, Mistake, Node};

pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    if text.chars().nth(Condition::LONGEST).is_some() {
        let what = format!("a condition has at most {} characters", Condition::LONGEST);
        return Err(Mistake { at: Condition::LONGEST + 1, what });
    }
    let mut parser = Parser { tokens: Tokens::new(text)?, depth: 0, patterns: 0 };
    if parser.tokens.peek() == Token::End {
        return Ok(Node::All(Vec::new()));
    }
    let node = parser.either()?;
    match parser.tokens.peek() {
        Token::End => Ok(node),
        Token::Sign(")") => Err(parser.tokens.mistake("this bracket was not opened")),
        Token::Word(_) | Token::Text(_) | Token::Raw(_) | Token::Sign(_) => Err(parser
            .tokens
            .mistake(format!("`and`, `or`, `xor` or the end is missing before {}", parser.tokens.seen()))),
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    /// Brackets that are open.
    depth: usize,
    /// Regular expressions so far.
    patterns: usize,
}

type Parsed<T = Node> = Result<T, Mistake>;

/// Where a test stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Condition,
    Any,
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Parsed {
        self.chain("or", "||", Self::odd, Node::Any)
    }

    fn odd(&mut self) -> Parsed {
        self.chain("xor", "^^", Self::all, Node::Odd)
    }

    fn all(&mut self) -> Parsed {
        self.chain("and", "&&", Self::negated, Node::All)
    }

    fn chain(
        &mut self,
        word: &str,
        sign: &str,
        part: impl Fn(&mut Self) -> Parsed,
        join: impl FnOnce(Vec<Node>) -> Node,
    ) -> Parsed {
        let first = part(self)?;
        let mut nodes = vec![first];
        while self.tokens.has_either(word, sign)? {
            nodes.push(part(self)?);
        }
        match nodes.pop() {
            Some(only) if nodes.is_empty() => Ok(only),
            last => {
                nodes.extend(last);
                Ok(join(nodes))
            }
        }
    }

    fn negated(&mut self) -> Parsed {
        let mut is_negated = false;
        while self.tokens.has_either("not", "!")? {
            is_negated = !is_negated;
        }
        let node = self.single()?;
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn single(&mut self) -> Parsed {
        if matches!(self.tokens.peek(), Token::Sign("(")) {
            if self.depth >= DEEPEST {
                return Err(self.tokens.mistake(format!("more than {DEEPEST} brackets are open")));
            }
            self.tokens.take()?;
            self.depth += 1;
            let node = self.either()?;
            self.depth -= 1;
            self.tokens.expect(")", "where a bracket was opened")?;
            return Ok(node);
        }
        let test = if matches!(self.tokens.peek(), Token::Word("any")) {
            self.tokens.take()?;
            self.tokens.expect("(", "after `any`")?;
            let test = self.test(Within::Any)?;
            self.tokens.expect(")", "at the end of `any`")?;
            test
        } else {
            self.test(Within::Condition)?
        };
        Ok(Node::Test(Box::new(test)))
    }

    fn test(&mut self, within: Within) -> Parsed<Test> {
        let mut function = None;
        if let Token::Word(word @ ("starts_with" | "ends_with")) = self.tokens.peek() {
            function = Some(word);
            self.tokens.take()?;
            self.tokens.expect("(", "after the function")?;
        }
        let at = self.tokens;
        let (source, is_lower) = self.value()?;
        match (source.is_many(), within) {
            (true, Within::Condition) => {
                return Err(at.mistake("these are many values: write any(…), or [0] for the first"));
            }
            (false, Within::Any) if source != Source::Dns => {
                return Err(
                    at.mistake("`any` is of many values, such as http.request.headers[\"x-name\"][*]")
                );
            }
            (true, Within::Any) | (false, _) => {}
        }
        let Some(function) = function else {
            let (check, of_nothing) = self.comparison(source.kind())?;
            let of_nothing = of_nothing && !source.is_many();
            return Ok(Test { source, is_lower, check, of_nothing });
        };
        self.tokens.expect(",", "between what is looked at and its text")?;
        if !matches!(source.kind(), Kind::Text | Kind::Nothing) {
            return Err(at.mistake("this function is of text"));
        }
        let text = self.tokens.text()?.into_bytes();
        self.tokens.expect(")", "at the end of the function")?;
        self.tokens.has("[*]")?;
        let check = if function == "starts_with" { Check::Begins(text) } else { Check::Ends(text) };
        Ok(Test { source, is_lower, check, of_nothing: false })
    }

    /// A field, perhaps in lower case.
    fn value(&mut self) -> Parsed<(Source, bool)> {
        let mut lowers = 0_usize;
        while matches!(self.tokens.peek(), Token::Word("lower")) {
            self.tokens.take()?;
            self.tokens.expect("(", "after `lower`")?;
            lowers += 1;
        }
        let before = self.tokens;
        let source = self.source()?;
        if lowers > 0 && !matches!(source.kind(), Kind::Text | Kind::Nothing) {
            return Err(before.mistake("`lower` is of text"));
        }
        for _ in 0..lowers {
            self.tokens.expect(")", "at the end of `lower`")?;
            // Of many values there are many; whoever says so again is right.
            if source.is_many() {
                self.tokens.has("[*]")?;
            }
        }
        Ok((source, lowers > 0))
    }

    fn source(&mut self) -> Parsed<Source> {
        let Token::Word(word) = self.tokens.peek() else {
            let what = format!("a field is missing before {}; there are {FIELDS}", self.tokens.seen());
            return Err(self.tokens.mistake(what));
        };
        let simple = match word {
            "http.cookie" => Source::Cookie,
            "http.host" => Source::Host,
            "http.referer" => Source::Referer,
            "http.request.method" => Source::Method,
            "http.request.uri" => Source::Uri,
            "http.request.uri.path" => Source::Path,
            "http.request.uri.query" => Source::Query,
            "http.request.version" => Source::Version,
            "http.request.timestamp.sec" => Source::Seconds,
            "ip.src" => Source::Client,
            "cf.load_balancer.name" => Source::Balancer,
            "cf.load_balancer.region" => Source::Region,
            _ if word.starts_with("dns.") => Source::Dns,
            _ => return self.listed(word),
        };
        self.tokens.take()?;
        Ok(simple)
    }

    /// Of the fields that have names and values.
    fn listed(&mut self, word: &str) -> Parsed<Source> {
        let is_headers = word.starts_with("http.request.headers");
        let list = match word {
            "http.request.headers" | "http.request.uri.args" => None,
            "http.request.headers.names" | "http.request.uri.args.names" => Some(List::Names),
            "http.request.headers.values" | "http.request.uri.args.values" => Some(List::Values),
            _ => {
                let what = format!("{} is no field; there are {FIELDS}", self.tokens.seen());
                return Err(self.tokens.mistake(what));
            }
        };
        self.tokens.take()?;
        let list = match list {
            Some(list) => list,
            None => {
                self.tokens.expect("[", "with a name after it, such as [\"x-name\"][0]")?;
                let name = self.tokens.text()?;
                self.tokens.expect("]", "after the name")?;
                // Names of headers are compared without regard to case.
                List::Of(if is_headers { name.to_ascii_lowercase() } else { name })
            }
        };
        let pick = if self.tokens.has("[*]")? {
            Pick::Each
        } else {
            self.tokens.expect("[", "with a number or * after it: which of its values")?;
            let at = self.number()?;
            self.tokens.expect("]", "after the number")?;
            Pick::At(usize::try_from(at).unwrap_or(usize::MAX))
        };
        Ok(if is_headers { Source::Headers(list, pick) } else { Source::Arguments(list, pick) })
    }

    /// An operator with what it compares with, and what it is worth where there is nothing to compare.
    fn comparison(&mut self, kind: Kind) -> Parsed<(Check, bool)> {
        let before = self.tokens;
        let compare = match self.tokens.take()? {
            Token::Word("eq") | Token::Sign("==") => Compare::Eq,
            Token::Word("ne") | Token::Sign("!=") => Compare::Ne,
            Token::Word("lt") | Token::Sign("<") => Compare::Lt,
            Token::Word("le") | Token::Sign("<=") => Compare::Le,
            Token::Word("gt") | Token::Sign(">") => Compare::Gt,
            Token::Word("ge") | Token::Sign(">=") => Compare::Ge,
            Token::Word("in") => return Ok((self.set(kind)?, false)),
            Token::Word("contains") => {
                return self.pattern(kind, &before, Tokens::text, |text| Ok(regex::escape(text)));
            }
            Token::Word("matches") | Token::Sign("~") => {
                self.patterns += 1;
                if self.patterns > MOST_PATTERNS {
                    let what = format!("a condition has at most {MOST_PATTERNS} regular expressions");
                    return Err(before.mistake(what));
                }
                return self.pattern(kind, &before, Tokens::pattern, |text| Ok(text.to_owned()));
            }
            Token::Word("wildcard") => {
                let insensitive = |text: &str| wildcard(text).map(|text| format!("(?i){text}"));
                return self.pattern(kind, &before, Tokens::text, insensitive);
            }
            Token::Word("strict") if self.tokens.has_either("wildcard", "wildcard")? => {
                return self.pattern(kind, &before, Tokens::text, wildcard);
            }
            Token::Word(_) | Token::Text(_) | Token::Raw(_) | Token::Sign(_) | Token::End => {
                let what = format!("an operator is missing before {}; there are {OPERATORS}", before.seen());
                return Err(before.mistake(what));
            }
        };
        let check = match kind {
            Kind::Text => Check::Text(compare, self.tokens.text()?.into_bytes()),
            Kind::Number => Check::Number(compare, self.number()?),
            Kind::Address => Check::Address(compare, self.address()?),
            Kind::Nothing => self.anything()?,
        };
        Ok((check, compare == Compare::Ne))
    }

    /// A regular expression that is made of a text.
    fn pattern(
        &mut self,
        kind: Kind,
        operator: &Tokens<'_>,
        text: impl FnOnce(&mut Tokens<'a>) -> Parsed<String>,
        translated: impl FnOnce(&str) -> Result<String, &'static str>,
    ) -> Parsed<(Check, bool)> {
        if !matches!(kind, Kind::Text | Kind::Nothing) {
            return Err(operator.mistake(format!("{} is of text, and this field is none", operator.seen())));
        }
        let before = self.tokens;
        let text = text(&mut self.tokens)?;
        let pattern = translated(&text).map_err(|what| before.mistake(what))?;
        let pattern = regex(&pattern).map_err(|what| before.mistake(what))?;
        Ok((Check::Matches(pattern), false))
    }

    /// `{…}`, its members apart by spaces.
    fn set(&mut self, kind: Kind) -> Parsed<Check> {
        if matches!(self.tokens.peek(), Token::Sign("$")) {
            return Err(self.tokens.mistake("there are no lists here: write the members between { and }"));
        }
        self.tokens.expect("{", "after `in`")?;
        let (mut texts, mut numbers, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        while !self.tokens.has("}")? {
            match self.tokens.peek() {
                Token::Sign(",") => {
                    return Err(self.tokens.mistake("members of a set stand apart by spaces"));
                }
                Token::End => return Err(self.tokens.mistake("`}` is missing at the end of the set")),
                Token::Word(_) | Token::Text(_) | Token::Raw(_) | Token::Sign(_) => {}
            }
            match kind {
                Kind::Text => texts.push(self.tokens.text()?.into_bytes()),
                Kind::Number => numbers.push(self.numbers()?),
                Kind::Address => addresses.push(self.addresses()?),
                Kind::Nothing => _ = self.anything()?,
            }
        }
        texts.sort();
        Ok(match kind {
            Kind::Text => Check::TextIn(texts),
            Kind::Number => Check::NumberIn(numbers),
            Kind::Address => Check::AddressIn(addresses),
            Kind::Nothing => Check::Never,
        })
    }

    fn number(&mut self) -> Parsed<u64> {
        self.word("a number", number)
    }

    /// A number, or a range of them: `3..7`.
    fn numbers(&mut self) -> Parsed<(u64, u64)> {
        self.word("a number or a range such as 3..7", |word| match word.split_once("..") {
            Some((from, to)) => number(from).zip(number(to)).filter(|(from, to)| from <= to),
            None => number(word).map(|number| (number, number)),
        })
    }

    fn address(&mut self) -> Parsed<IpAddr> {
        self.word("an address (a network stands in a set: in {192.0.2.0/24})", |word| word.parse().ok())
    }

    /// An address, a network or a range, as its first and its last address.
    fn addresses(&mut self) -> Parsed<(IpAddr, IpAddr)> {
        self.word("an address, a network without bits beyond its length or a range of addresses", |word| {
            if let Some((from, to)) = word.split_once("..") {
                let range: (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
                return (range.0.is_ipv4() == range.1.is_ipv4() && range.0 <= range.1).then_some(range);
            }
            let (address, length) = match word.split_once('/') {
                Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
                None => (word, None),
            };
            network(address.parse().ok()?, length)
        })
    }

    fn anything(&mut self) -> Parsed<Check> {
        if !matches!(self.tokens.peek(), Token::Word(_) | Token::Text(_) | Token::Raw(_)) {
            return Err(self.tokens.mistake(format!("a value is missing before {}", self.tokens.seen())));
        }
        self.tokens.take()?;
        Ok(Check::Never)
    }

    /// The next word, if `read` makes something of it.
    fn word<T>(&mut self, wanted: &str, read: impl FnOnce(&str) -> Option<T>) -> Parsed<T> {
        let found = match self.tokens.peek() {
            Token::Word(word) => read(word),
            Token::Text(_) | Token::Raw(_) | Token::Sign(_) | Token::End => None,
        };
        let Some(found) = found else {
            let what = format!("{wanted} is missing in place of {}", self.tokens.seen());
            return Err(self.tokens.mistake(what));
        };
        self.tokens.take()?;
        Ok(found)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The first and the last address of a network, whose address has no bits beyond its length.
fn network(address: IpAddr, length: Option<u32>) -> Option<(IpAddr, IpAddr)> {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(length.unwrap_or(32)).unwrap_or(0);
            let is_network = length.is_none_or(|length| length <= 32) && address.to_bits() & rest == 0;
            let last = std::net::Ipv4Addr::from_bits(address.to_bits() | rest);
            is_network.then_some((address.into(), last.into()))
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(length.unwrap_or(128)).unwrap_or(0);
            let is_network = length.is_none_or(|length| length <= 128) && address.to_bits() & rest == 0;
            let last = std::net::Ipv6Addr::from_bits(address.to_bits() | rest);
            is_network.then_some((address.into(), last.into()))
        }
    }
}

/// A pattern in which `*` is any number of any characters, `\*` a star and `\\` a backslash.
fn wildcard(pattern: &str) -> Result<String, &'static str> {
    let (mut translated, mut chars) = (String::from("(?s)^"), pattern.chars());
    let mut is_after_star = false;
    while let Some(char) = chars.next() {
        if char == '*' {
            if std::mem::replace(&mut is_after_star, true) {
                return Err("two stars beside each other are as good as one: write one");
            }
            translated.push_str(".*");
            continue;
        }
        is_after_star = false;
        let literal = match char {
            '\\' => chars.next().filter(|next| matches!(next, '*' | '\\')),
            _ => Some(char),
        };
        let literal = literal.ok_or("in a pattern after a backslash comes `*` or another one")?;
        translated.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
    }
    translated.push('$');
    Ok(translated)
}

fn regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(LARGEST_PATTERN)
        .dfa_size_limit(LARGEST_PATTERN)
        .nest_limit(DEEPEST_PATTERN)
        .build();
    built.map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return "the regular expression is too large".to_owned();
        }
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("no regular expression: {reason}")
    })
}

/// Brackets inside of each other.
const DEEPEST: usize = 64;
/// Regular expressions of one condition, what each may take in memory, and how deep it is.
const MOST_PATTERNS: usize = 16;
const LARGEST_PATTERN: usize = 256 * 1024;
const DEEPEST_PATTERN: u32 = 50;

const FIELDS: &str = "http.cookie, http.host, http.referer, http.request.headers, http.request.method, \
                      http.request.timestamp.sec, http.request.uri, http.request.uri.args, http.request.uri.path, \
                      http.request.uri.query, http.request.version, ip.src, cf.load_balancer.name and \
                      cf.load_balancer.region";
const OPERATORS: &str = "eq, ne, lt, le, gt, ge, contains, wildcard, strict wildcard, matches and in";
