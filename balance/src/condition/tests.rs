//! What is promised of conditions.

use proptest::prelude::*;

use super::*;
use crate::selection::tests::cases;

const HEADERS: &[(&str, &str)] = &[
    ("cookie", "a=1"),
    ("x-name", "One"),
    ("x-name", "two"),
    ("cookie", "b=2"),
    ("accept", "text/html"),
    ("x-star", "a*b"),
];

fn view() -> View<'static> {
    View {
        host: "app.example.com",
        method: "GET",
        path: "/shop/items",
        query: "q=red&q=blue&empty&page=2",
        version: "HTTP/2",
        headers: &HEADERS,
        client: "192.0.2.7".parse().unwrap(),
        seconds: 1_800_000_000,
        balancer: "lb.example.com",
        region: "WEU",
    }
}

fn holds(text: &str) -> bool {
    match Condition::parse(text) {
        Ok(condition) => condition.matches(&view()),
        Err(mistake) => panic!("{text}: {mistake}"),
    }
}

#[test]
fn conditions_say_of_a_request_what_is_so() {
    for text in [
        "",
        "  \n ",
        r#"http.host eq "app.example.com""#,
        r#"http.host == "app.example.com" and http.request.method in {"GET" "HEAD"}"#,
        r#"http.host ne "app""#,
        r#"http.host contains "example""#,
        r#"http.host contains ".""#,
        r#"http.host wildcard "*.EXAMPLE.com""#,
        r#"http.host wildcard "app*""#,
        r#"http.host strict wildcard "*.example.*""#,
        r##"http.request.uri.path matches r#"^/shop/\w+$"#"##,
        r#"http.request.uri.path matches "^/shop/\w+$""#,
        r#"http.request.uri.path ~ "items""#,
        r#"http.request.uri eq "/shop/items?q=red&q=blue&empty&page=2""#,
        r#"http.request.uri.query contains "page=2""#,
        r#"http.request.version eq "HTTP/2""#,
        r#"http.cookie eq "a=1; b=2""#,
        r#"http.referer eq """#,
        r#"http.request.uri.args["q"][1] eq "blue""#,
        r#"http.request.uri.args["empty"][0] eq """#,
        r#"any(http.request.uri.args["q"][*] eq "blue")"#,
        r#"any(http.request.uri.args.names[*] eq "page")"#,
        r#"any(http.request.uri.args.values[*] eq "2")"#,
        r#"http.request.headers["X-Name"][0] eq "One""#,
        r#"any(http.request.headers["x-name"][*] == "two")"#,
        r#"any(lower(http.request.headers["x-name"][*])[*] eq "one")"#,
        r#"any(starts_with(http.request.headers["accept"][*], "text/"))"#,
        r#"any(http.request.headers.names[*] eq "x-name")"#,
        r#"any(http.request.headers.values[*] contains "html")"#,
        r#"http.request.headers["x-star"][0] strict wildcard r"a\*b""#,
        r#"http.request.headers["x-star"][0] strict wildcard "a\\*b""#,
        r#"lower(http.request.method) eq "get""#,
        r#"starts_with(http.request.uri.path, "/shop")"#,
        r#"ends_with(lower(http.host), ".com")"#,
        "http.request.timestamp.sec ge 1800000000",
        "http.request.timestamp.sec in {1 3..7 0x6b49d200}",
        "ip.src eq 192.0.2.7",
        "ip.src in {10.0.0.0/8 192.0.2.0/24}",
        "ip.src in {192.0.2.1..192.0.2.9}",
        "ip.src in {0.0.0.0/0}",
        r#"cf.load_balancer.name eq "lb.example.com" && cf.load_balancer.region eq "WEU""#,
        // What is not there is not equal to anything, and passes nothing else.
        r#"http.request.headers["x-none"][0] ne "a""#,
        r#"http.request.headers["x-name"][2] ne "a""#,
        // Precedence: not, and, xor, or.
        r#"http.host eq "a" and http.host eq "b" or ip.src eq 192.0.2.7"#,
        r#"ip.src eq 192.0.2.7 or http.host eq "a" and http.host eq "b""#,
        r#"not http.host eq "a" and ip.src eq 192.0.2.7"#,
        r#"ip.src eq 192.0.2.7 or ip.src eq 192.0.2.7 xor ip.src eq 192.0.2.7"#,
        r#"!(http.host eq "a" || http.host eq "b") ^^ http.host eq "c""#,
        r#"not not (http.host ge "app")"#,
        // Nothing is true of a question to a name server, because there is none.
        "not dns.qry.type == 28",
        r#"not dns.qry.name in {"a" "b"} and not starts_with(dns.qry.name, "a") and not dns.qry.type ne 28"#,
    ] {
        assert!(holds(text), "{text}");
        assert!(text.trim().is_empty() || !holds(&format!("not ({text})")), "{text}");
    }
    for text in [
        r#"http.host wildcard "app""#,
        r#"http.host strict wildcard "*.EXAMPLE.com""#,
        r#"http.host eq "APP.example.com""#,
        r#"http.host contains "app.*""#,
        r#"http.request.headers["x-name"][0] eq "two""#,
        r#"http.request.headers["x-none"][0] eq """#,
        r#"any(http.request.headers["x-none"][*] ne "a")"#,
        "ip.src in {::/0 192.0.2.8/29}",
        "ip.src gt 192.0.2.7",
        "http.request.timestamp.sec in {}",
        "dns.qry.type == 28",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn a_visitor_by_ipv4_over_ipv6_is_one_by_ipv4() {
    let mut view = view();
    view.client = "::ffff:192.0.2.7".parse().unwrap();
    assert!(Condition::parse("ip.src in {192.0.2.0/24}").unwrap().matches(&view));
    view.client = "2001:db8::7".parse().unwrap();
    assert!(Condition::parse("ip.src in {0.0.0.0/0 2001:db8::/32}").unwrap().matches(&view));
    assert!(!Condition::parse("ip.src in {0.0.0.0/0 2001:db8::/126}").unwrap().matches(&view));
}

#[test]
fn a_mistake_says_where_it_is_and_what_would_be_right() {
    for (text, at, what) in [
        (r#"http.hots eq "a""#, 1, "`http.hots` is no field; there are http.cookie"),
        ("http.host", 10, "an operator is missing before the end; there are eq"),
        ("http.host is \"a\"", 11, "an operator is missing before `is`"),
        ("http.host eq a", 14, "a text in \"\" is missing before `a`"),
        ("http.host eq 'a'", 14, "`'` means nothing here; text stands between \""),
        ("http.host eq \"a", 14, "no end"),
        ("http.host eq r#\"a\"", 14, "no end, which is `\"#`"),
        (r#"http.host eq "ä\q""#, 16, "after a backslash comes"),
        (r#"http.host eq "\xe4""#, 15, "after a backslash comes"),
        (r#"(http.host eq "a""#, 18, "`)` is missing where a bracket was opened, before the end"),
        (r#"http.host eq "a")"#, 17, "this bracket was not opened"),
        (r#"http.host eq "a" http.host eq "b""#, 18, "`and`, `or`, `xor` or the end is missing"),
        (r#"http.host eq "a" and"#, 21, "a field is missing before the end"),
        (r#"http.host in {"a", "b"}"#, 18, "apart by spaces"),
        (r#"http.host in {"a""#, 18, "`}` is missing"),
        ("ip.src in $office", 11, "no lists here"),
        ("ip.src eq 10.0.0.0/8", 11, "a network stands in a set"),
        ("ip.src in {10.0.0.1/8}", 12, "a network without bits beyond its length"),
        ("ip.src in {10.0.0.0/33}", 12, "in place of `10.0.0.0/33`"),
        ("ip.src contains \"a\"", 8, "`contains` is of text"),
        ("http.request.timestamp.sec eq 3..7", 31, "a number is missing"),
        ("http.request.timestamp.sec in {7..3}", 32, "a number or a range"),
        (r#"http.host matches "a(""#, 19, "no regular expression: unclosed group"),
        (r#"http.host matches "(a{1000}){1000}""#, 19, "too large"),
        (r#"http.host wildcard "a**""#, 20, "two stars"),
        (r#"http.host wildcard r"a\b""#, 20, "in a pattern after a backslash"),
        (r#"http.request.headers["a"][*] eq "b""#, 1, "write any(…), or [0] for the first"),
        (r#"http.request.headers["a"] eq "b""#, 27, "which of its values"),
        ("http.request.headers eq \"b\"", 22, "with a name after it"),
        (r#"any(http.host eq "a")"#, 5, "`any` is of many values"),
        ("starts_with(ip.src, \"a\")", 13, "this function is of text"),
        ("lower(ip.src) eq \"a\"", 7, "`lower` is of text"),
        ("starts_with(http.host \"a\")", 23, "`,` is missing"),
        (&"(".repeat(70), 65, "more than 64 brackets"),
        (&format!("{}x", " ".repeat(4096)), 4097, "at most 4096 characters"),
    ] {
        let mistake = Condition::parse(text).unwrap_err();
        assert!(mistake.at == at && mistake.what.contains(what), "{text}: {mistake}");
        assert_eq!(mistake.to_string(), format!("at character {}: {}", mistake.at, mistake.what));
    }
    let many = vec![r#"http.host matches "a""#; 17].join(" or ");
    assert!(Condition::parse(&many).unwrap_err().what.contains("at most 16 regular expressions"));
}

/// A condition of which is known whether it holds.
fn known() -> impl Strategy<Value = (String, bool)> {
    let simple = prop_oneof![
        Just((r#"http.host eq "app.example.com""#.to_owned(), true)),
        Just(("ip.src in {10.0.0.0/8}".to_owned(), false)),
        Just((r#"any(http.request.uri.args["q"][*] eq "red")"#.to_owned(), true)),
        Just(("dns.qry.type == 28".to_owned(), false)),
    ];
    simple.prop_recursive(8, 60, 4, |inner| {
        let some = prop::collection::vec(inner.clone(), 1..4);
        let joined = |word: &'static str, join: fn(&[bool]) -> bool| {
            some.clone().prop_map(move |parts| {
                let (texts, are): (Vec<_>, Vec<_>) =
                    parts.into_iter().map(|(text, is)| (format!("({text})"), is)).unzip();
                (texts.join(word), join(&are))
            })
        };
        prop_oneof![
            inner.prop_map(|(text, is)| (format!("not ({text})"), !is)),
            joined(" and ", |are| are.iter().all(|is| *is)),
            joined("||", |are| are.iter().any(|is| *is)),
            joined(" xor ", |are| are.iter().filter(|is| **is).count() % 2 == 1),
        ]
    })
}

/// Words that make sense here and there, in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "(",
        ")",
        "not",
        "!",
        "and",
        "or",
        "xor",
        "any",
        "lower",
        "starts_with",
        "http.host",
        "ip.src",
        "eq",
        "in",
        "{",
        "}",
        "\"a\"",
        "r\"b*\"",
        "wildcard",
        "strict",
        "matches",
        "1",
        "1..2",
        "10.0.0.0/8",
        "[*]",
        "[",
        "]",
        "0",
        ",",
        "http.request.headers",
        "http.request.uri.args.names",
        "dns.qry.type",
        "\\",
        "\"",
        "r#",
        "é",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..cases() })]

    #[test]
    fn what_is_joined_holds_as_its_parts_do((text, is) in known()) {
        prop_assume!(text.chars().count() <= Condition::LONGEST);
        prop_assert_eq!(holds(&text), is, "{}", text);
    }

    #[test]
    fn any_text_is_a_condition_or_a_mistake_within_it(text in prop_oneof![words(), any::<String>()]) {
        match Condition::parse(&text) {
            Ok(condition) => _ = condition.matches(&view()),
            Err(mistake) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&mistake.at), "{mistake}");
                prop_assert!(!mistake.what.is_empty());
            }
        }
    }

    #[test]
    fn a_pattern_with_stars_is_met_by_what_was_made_of_it(
        parts in prop::collection::vec("[a-zA-Z.?+()\\[\\]äß]{0,6}", 1..5), between in "[a-z/äß.*\n]{0,5}",
    ) {
        let pattern = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("*");
        let value = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(&between);
        let condition = Condition::parse(&format!("http.request.uri.path strict wildcard r##\"{pattern}\"##")).unwrap();
        let is_met = condition.matches(&View { path: &value, ..view() });
        prop_assert!(is_met);
        let longer = format!("{value}!");
        let is_met = condition.matches(&View { path: &longer, ..view() });
        prop_assert!(!is_met);
    }
}
