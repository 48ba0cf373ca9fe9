//! Where the time of a request went: what the inspector says of it, held against the access log.

use e2e::process::component;

use super::*;

/// One exchange as its page shows it; times in microseconds.
#[derive(Debug)]
struct Shown {
    id: String,
    took: f64,
    /// What none of the stages has.
    rest: f64,
    /// Name, beginning, length.
    stages: Vec<(String, f64, f64)>,
}

impl Shown {
    fn of(page: &str) -> Self {
        let behind = |mark: &str| page.split(mark).nth(1).unwrap().split('<').next().unwrap().to_owned();
        let rows =
            page.split("<tr><th scope=\"row\">").skip(1).filter(|row| row.contains("class=\"picture\""));
        let stages = rows.map(|row| {
            let cells: Vec<&str> = row.split(['<', '>']).collect();
            (cells[0].to_owned(), micros(cells[4]), micros(cells[8]))
        });
        let rest = page.split(" are of none of these").next().unwrap();
        let rest = rest.rsplit("<p class=\"quiet\">").next().unwrap().split(" of ").next().unwrap();
        Self {
            id: behind("<dt>id</dt><dd class=\"code\">"),
            took: micros(&behind("<dt>took</dt><dd>")),
            rest: micros(rest),
            stages: stages.collect(),
        }
    }

    fn stage(&self, name: &str) -> Option<(f64, f64)> {
        let found = self.stages.iter().find(|(known, ..)| known == name);
        found.map(|(_, at, took)| (*at, *took))
    }
}

fn micros(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap_or_else(|| panic!("{text:?} is no time"));
    let scale = match unit {
        "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => panic!("{other:?} is no unit"),
    };
    number.replace('−', "-").parse::<f64>().unwrap() * scale
}

const REQUESTS: usize = 100;

/// seeing.md, row 9. What the edge and the tunnel took was before the host had the request, and is beside that sum.
#[tokio::test]
async fn the_stages_of_a_request_sum_to_the_time_of_the_access_log() {
    for protocol in ["quic", "http2"] {
        let origin = Origin::start();
        let site = Site::new();
        site.write("admin-token", format!("{TOKEN}\n"));
        let config = "[plugin.config.response.set]\nx-seen = \"yes\"";
        let mut host = HostDocument::new()
            .over(protocol)
            .keys("access-log = true")
            .plugin("headers", &component("headers"), config)
            .rule(&format!("service = \"{}\"\nplugins = [\"headers\"]", origin.service()));
        host.admin_keys = "token-file = \"admin-token\"".to_owned();
        let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
        let watch = ask(product.host.admin, "PUT", "/inspector", &[LOCAL, BEARER], Some("{\"for\":\"10m\"}"));
        assert_eq!(watch.await.json()["on"], true);
        let browser = Browser::sign_in(product.host.admin).await;
        let visitor = product.visitor(Speaks::Http1);
        for number in 0..REQUESTS {
            // What visitors say of a time is nobody's.
            let path = if number % 10 == 0 { "/chunks/100000" } else { "/echo" };
            let answer = visitor.send(bare(to("GET", path).header("adit-waited", "3000000000"))).await;
            assert_eq!(answer.status, 200);
            let is_told = path == "/echo" && answer.text().contains("adit-waited");
            assert!(!is_told, "the service hears nothing of it");
        }
        let texts = browser.all(REQUESTS).await;
        let shown: Vec<Shown> =
            texts.iter().filter(|text| text.contains("<dt>took</dt>")).map(|page| Shown::of(page)).collect();
        assert_eq!(shown.len(), REQUESTS);
        let (mut exact, mut rests) = (0, Vec::new());
        for one in &shown {
            let line = product.host.process.event("access", |event| event["id"] == one.id.as_str()).await;
            let logged = line["milliseconds"].as_f64().unwrap_or_else(|| panic!("{line}")) * 1e3;
            let inside = one.stages.iter().filter(|(_, at, _)| *at >= 0.0);
            let sum = inside.map(|(.., took)| took).sum::<f64>() + one.rest;
            exact += usize::from((sum - logged).abs() < 1e3 && (one.took - logged).abs() < 1e3);
            rests.push(one.rest);
            for name in ["plugin headers", "origin"] {
                assert!(one.stage(name).is_some(), "no {name} in {one:?}");
            }
            let (edge_at, edge) = one.stage("edge").unwrap_or_else(|| panic!("no edge in {one:?}"));
            assert!(edge > 0.0 && edge_at < 0.0, "{one:?}");
            assert!(edge < 3e9, "the visitor decides nothing: {one:?}");
            if let Some((at, took)) = one.stage("tunnel") {
                assert!((at + took).abs() <= 5.0, "the tunnel ends where the host begins: {one:?}");
            }
        }
        rests.sort_by(f64::total_cmp);
        println!("{protocol}: {exact} of {REQUESTS} within 1 ms; of none: median {} µs", rests[REQUESTS / 2]);
        assert!(exact * 100 >= REQUESTS * 99, "{exact} of {REQUESTS} over {protocol}: {shown:#?}");
        let with_tunnel = shown.iter().filter(|one| one.stage("tunnel").is_some()).count();
        assert!(protocol == "http2" || with_tunnel == REQUESTS, "{with_tunnel} know of the tunnel");
    }
}
