//! What somebody sees who hands in a document with mistakes.

use adit_config_reader::{Mistakes, Place, Spanned, closest, glimpse, read};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Garden {
    name: Option<Spanned<String>>,
    area: Option<Spanned<u16>>,
    gate: Gate,
    bed: Vec<Spanned<Bed>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Gate {
    is_open: Option<Spanned<bool>>,
    colour: Option<Spanned<Colour>>,
    keys: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Colour {
    Green,
    DarkRed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Bed {
    plant: Option<Spanned<String>>,
    rows: Option<Spanned<u8>>,
}

#[test]
fn a_document_without_mistakes_is_read_whole() {
    let text =
        "name = 'rose'\n[gate]\nis-open = true\ncolour = 'dark-red'\nkeys = ['a']\n[[bed]]\nrows = 3\n";
    let (garden, mistakes) = read::<Garden>("garden.toml", text).unwrap();
    assert!(mistakes.is_empty());
    assert_eq!(garden.name.unwrap().into_inner(), "rose");
    assert_eq!(garden.gate.colour.unwrap().into_inner(), Colour::DarkRed);
    assert_eq!(garden.bed[0].get_ref().rows.as_ref().unwrap().get_ref(), &3);
    assert_eq!(garden.gate.keys.unwrap().get_ref().len(), 1);
}

#[test]
fn every_mistake_is_in_one_report_and_the_rest_is_read() {
    let text = "\
nam = 'rose'
area = 70000

[gate]
is_open = 1
colour = 'gren'
keys = ['a', 5]

[[bed]]
plant = 7
rows = 3

[[bed]]
plant = 'kale'
size = 4
rows = -1
";
    let (garden, mistakes) = read::<Garden>("garden.toml", text).unwrap();
    assert_eq!(
        mistakes.to_string(),
        "\
garden.toml:1:1: nam: unknown key `nam`
  help: did you mean `name`?
garden.toml:2:8: area: 70000 is out of range, expected a whole number from 0 to 65535
garden.toml:5:1: gate.is_open: unknown key `is_open`
  help: did you mean `is-open`?
garden.toml:6:10: gate.colour: unknown value `gren`
  help: did you mean `green`?
garden.toml:7:14: gate.keys[1]: expected a string, found an integer
garden.toml:10:9: bed[0].plant: expected a string, found an integer
garden.toml:15:1: bed[1].size: unknown key `size`
  help: known keys: plant, rows
garden.toml:16:8: bed[1].rows: -1 is out of range, expected a whole number from 0 to 255"
    );
    assert_eq!(garden.bed.len(), 2);
    assert_eq!(garden.bed[0].get_ref().rows.as_ref().unwrap().get_ref(), &3);
    assert_eq!(garden.bed[1].get_ref().plant.as_ref().unwrap().get_ref(), "kale");
    assert_eq!(garden.gate.keys.unwrap().get_ref().len(), 1);
}

#[test]
fn mistakes_of_the_caller_join_in_the_order_of_the_text() {
    let text = "name = ''\n\n[[bed]]\nrows = 'x'\n[[bed]]\nplant = 'kale'\n";
    let (garden, mut mistakes) = read::<Garden>("garden.toml", text).unwrap();
    let kale = garden.bed[1].get_ref().plant.as_ref().unwrap().span();
    mistakes.add_with_help(kale, "kale is sold out", "take chard");
    mistakes.add(garden.name.unwrap().span(), "a garden has a name");
    mistakes.add(0..0, "no fence");
    mistakes.add_missing(garden.bed[1].span(), "rows", "rows = 1");
    assert_eq!(
        mistakes.into_result(()).unwrap_err().to_string(),
        "\
garden.toml: no fence
garden.toml:1:8: name: a garden has a name
garden.toml:4:8: bed[0].rows: expected a whole number, found a string
garden.toml:5:1: bed[1]: `rows` is missing
  help: rows = 1
garden.toml:6:9: bed[1].plant: kale is sold out
  help: take chard"
    );
}

#[test]
fn a_key_that_was_refused_or_misspelt_is_not_called_missing_as_well() {
    let text = "[[bed]]\nplants = 'kale'\nrows = 'x'\n[[bed]]\n";
    let (garden, mut mistakes) = read::<Garden>("garden.toml", text).unwrap();
    for bed in &garden.bed {
        mistakes.add_missing(bed.span(), "plant", "plant = 'kale'");
        mistakes.add_missing(bed.span(), "rows", "rows = 1");
    }
    let messages: Vec<_> = mistakes.iter().map(|mistake| (line(mistake), mistake.message.as_str())).collect();
    assert_eq!(
        messages,
        [
            (2, "unknown key `plants`"),
            (3, "expected a whole number, found a string"),
            (4, "`plant` is missing"),
            (4, "`rows` is missing")
        ]
    );
}

#[test]
fn a_list_of_tables_where_one_table_belongs_is_one_mistake() {
    let text = "[[gate]]\nis-open = true\n[[gate]]\nis-open = 5\n";
    let (garden, mistakes) = read::<Garden>("garden.toml", text).unwrap();
    assert_eq!(mistakes.to_string(), "garden.toml:1:1: gate: expected a table, found an array");
    assert!(garden.gate.is_open.is_none());
}

#[test]
fn a_table_where_a_list_of_tables_belongs_is_one_mistake() {
    let mistakes = read::<Garden>("garden.toml", "[bed]\nrows = 5\n").unwrap().1;
    assert_eq!(mistakes.to_string(), "garden.toml:1:1: bed: expected an array, found a table");
}

#[test]
fn an_array_is_not_taken_for_a_table_by_the_order_of_its_elements() {
    let (garden, mistakes) =
        read::<Garden>("garden.toml", "gate = [true]\nbed = [['kale', 3], 5]\n").unwrap();
    assert_eq!(
        mistakes.to_string(),
        "\
garden.toml:1:8: gate: expected a table, found an array
garden.toml:2:8: bed[0]: expected a table, found an array
garden.toml:2:21: bed[1]: expected a table, found an integer"
    );
    assert!(garden.gate.is_open.is_none() && garden.bed.is_empty());
}

#[test]
fn values_of_any_shape_pass_through_unchanged() {
    let text = "d = 2026-01-02T03:04:05Z\nf = 1.5\ni = 0xff\nn = [-inf, { a = 'b' }]\n[t.u]\nv = false\n";
    let (table, mistakes) = read::<toml::Table>("any.toml", text).unwrap();
    assert!(mistakes.is_empty());
    assert_eq!(table, toml::from_str::<toml::Table>(text).unwrap());
    let (_, mistakes) = read::<toml::Table>("any.toml", "a = 99999999999999999999\nb = 1e999\n").unwrap();
    assert_eq!(mistakes.len(), 2, "{mistakes}");
}

#[test]
fn several_slips_of_syntax_are_reported_together() {
    let mistakes = unreadable("name = rose\narea 5\n[gate\nis-open = true\n");
    let lines: Vec<_> = mistakes.iter().map(line).collect();
    assert_eq!(lines, [1, 2, 3], "{mistakes}");
}

#[test]
fn a_key_written_twice_keeps_its_first_value_and_the_rest_is_still_checked() {
    let (garden, mistakes) = read::<Garden>("g.toml", "name = 'a'\nname = 'b'\nsize = 1\n").unwrap();
    assert_eq!(garden.name.unwrap().into_inner(), "a");
    let found: Vec<_> = mistakes.iter().map(|mistake| (line(mistake), mistake.message.as_str())).collect();
    assert_eq!(found, [(2, "duplicate key"), (3, "unknown key `size`")]);
}

#[test]
fn columns_count_characters_and_lines_may_end_in_crlf() {
    let (_, mistakes) = read::<Garden>("g.toml", "name = 'ä'\r\ngate = { 'größe' = 1 }\r\n").unwrap();
    let mistake = mistakes.iter().next().unwrap();
    assert_eq!(mistake.place, Some(Place { line: 2, column: 10 }));
    assert_eq!(mistake.path.as_deref(), Some("gate.\"größe\""));
}

#[test]
fn written_strings_are_not_repeated_in_the_report() {
    let (_, mistakes) = read::<Garden>("g.toml", "area = 'hunter2'\nbed = 'hunter2'\n").unwrap();
    assert_eq!(mistakes.len(), 2);
    assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
    assert!(!format!("{mistakes:?}").contains("hunter2"));
}

#[test]
fn a_key_cannot_send_control_characters_to_the_terminal() {
    let (_, mistakes) = read::<Garden>("g.toml", "\"a\\u001b[2J\" = 1\n").unwrap();
    assert!(!mistakes.to_string().contains('\u{1b}'), "{mistakes}");
}

#[test]
fn a_wrong_file_does_not_flood_the_reader() {
    let text: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
    let mistakes = read::<Garden>("g.toml", &text).unwrap_err();
    assert_eq!(mistakes.iter().count(), 100);
    let broken = "= 1\n".repeat(1000);
    let mistakes = read::<Garden>("g.toml", &broken).unwrap_err();
    assert_eq!(mistakes.len(), 1000);
    assert!(mistakes.to_string().ends_with("and 900 more"));
}

#[test]
fn deep_nesting_is_a_mistake_and_not_a_stack_overflow() {
    unreadable(&format!("name = {}", "[".repeat(100_000)));
    unreadable(&format!("name = {}", "{a=".repeat(100_000)));
    unreadable(&format!("{} = 1", vec!["a"; 100_000].join(".")));
    unreadable(&format!("[{}]", vec!["a"; 100_000].join(".")));
}

#[test]
fn one_key_can_be_read_where_the_rest_is_broken() {
    for text in [
        "name = \"rose\"\n[a",
        "name = \"rose\"\nb = \"",
        "a\nname = \"rose\"",
        "name = \"rose\"\nname = 7\n",
        "unknown = 1\nname = \"rose\"",
    ] {
        assert_eq!(glimpse(text, "name").as_deref(), Some("rose"), "{text}");
    }
    for text in ["", "name = 7", "name = ", "[a]\n[b"] {
        assert_eq!(glimpse(text, "name"), None, "{text}");
    }
}

#[test]
fn a_suggestion_is_the_nearest_known_word_or_none() {
    let known = ["hostname", "path", "service", "connect-timeout"];
    let closest = |word| closest(word, known);
    assert_eq!(closest("hostnam"), Some("hostname"));
    assert_eq!(closest("Hostname"), Some("hostname"));
    assert_eq!(closest("host"), Some("hostname"));
    assert_eq!(closest("connectTimeout"), Some("connect-timeout"));
    assert_eq!(closest("connect_timeout"), Some("connect-timeout"));
    assert_eq!(closest("sevrice"), Some("service"));
    assert_eq!(closest("banana"), None);
    assert_eq!(closest(""), None);
    assert_eq!(closest(&"h".repeat(100_000)), None);
}

fn line(mistake: &adit_config_reader::Mistake) -> usize {
    mistake.place.map_or(0, |place| place.line)
}

fn unreadable(text: &str) -> Mistakes {
    let mistakes = read::<Garden>("garden.toml", text).expect_err("the text is not TOML");
    assert!(!mistakes.is_empty());
    mistakes
}
