//! Pictures of numbers: SVG that the server draws, with every number beside it as text.

use crate::html::Html;

/// Something that took a while, from `at` on, which may be before the whole began; both in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    pub name: String,
    pub at: i64,
    pub took: u64,
}

/// Bars below one another on a common scale of `total` microseconds, each a row with its name and its number.
#[must_use]
pub fn waterfall(bars: &[Bar], total: u64) -> Html {
    let mut page = Html::new();
    page.raw("<table class=\"waterfall\"><thead><tr><th>stage</th><th>from</th><th>took</th><th><span class=\"unseen\">picture</span></th></tr></thead><tbody>");
    let first = bars.iter().map(|bar| bar.at).chain([0]).min().unwrap_or(0);
    let ends = bars.iter().map(|bar| bar.at.saturating_add_unsigned(bar.took));
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let scale = ends.chain([total, 1]).max().unwrap_or(1).abs_diff(first).max(1);
    for bar in bars {
        let place = |time: u64| time as f64 * WIDTH / scale as f64;
        let (x, width) = (place(bar.at.abs_diff(first)), place(bar.took).max(LEAST));
        page.raw("<tr><th scope=\"row\">")
            .text(&bar.name)
            .raw("</th><td class=\"number\">")
            .text(if bar.at < 0 { "−" } else { "" })
            .text(time(bar.at.unsigned_abs()));
        page.raw("</td><td class=\"number\">").text(time(bar.took)).raw("</td><td class=\"picture\">");
        page.raw("<svg viewBox=\"0 0 1000 14\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"track\" width=\"1000\" height=\"14\"/><rect class=\"");
        page.raw(kind(&bar.name))
            .raw("\" height=\"14\" x=\"")
            .show(format_args!("{:.1}", x.min(WIDTH - LEAST)));
        page.raw("\" width=\"").show(format_args!("{width:.1}")).raw("\"/></svg></td></tr>");
    }
    page.raw("</tbody></table>");
    page
}

/// As people read it.
#[must_use]
pub fn time(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.2} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

fn kind(name: &str) -> &'static str {
    match name.split(' ').next().unwrap_or_default() {
        "plugin" => "plugin",
        "origin" => "origin",
        "edge" | "tunnel" => "edge",
        _ => "other",
    }
}

const WIDTH: f64 = 1000.0;
/// What took hardly any time is seen all the same.
const LEAST: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_within_their_picture_and_their_names_stay_text() {
        let bars = [
            Bar { name: "plugin <b>".to_owned(), at: 0, took: 10 },
            Bar { name: "origin".to_owned(), at: 10, took: u64::from(u32::MAX) },
        ];
        let page = waterfall(&bars, 5).into_string();
        assert!(page.contains("plugin &lt;b&gt;") && page.contains("class=\"plugin\""), "{page}");
        let before = Bar { name: "edge".to_owned(), at: -1_500, took: 1_500 };
        let page = waterfall(&[vec![before], bars.to_vec()].concat(), 5).into_string();
        assert!(page.contains(">−1.50 ms<") && page.contains("x=\"0.0\""), "{page}");
        let widths = page
            .split("width=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
        assert!(widths.into_iter().all(|width| width <= WIDTH), "{page}");
        assert_eq!([time(7), time(1_500), time(2_000_000)], ["7 µs", "1.50 ms", "2.00 s"]);
    }
}
