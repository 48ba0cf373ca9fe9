//! `cargo xtask chaos`: the table of what may go wrong in a fleet, each row by tests of ours, with what it has to show,
//! what it showed, and whether that is enough.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::progress::{Progress, note};
use crate::tree::Tree;
use crate::{child, debian_package};

/// A row: what is done, what it has to show, and the tests that do it: what to build, and their names.
struct Row {
    number: u8,
    chaos: &'static str,
    goal: &'static str,
    tests: &'static [(Suite, &'static str)],
}

#[derive(Clone, Copy)]
enum Suite {
    Chaos,
    Edge,
    Library,
}

/// What became of a row.
struct Shown {
    row: &'static Row,
    figures: Vec<String>,
    verdict: String,
}

pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let (mut is_long, mut wanted) = (false, None);
    for argument in arguments {
        match argument.as_str() {
            "--long" => is_long = true,
            number => {
                let number: u8 = number.parse().context("takes --long and the number of a row")?;
                ensure!(ROWS.iter().any(|row| row.number == number), "there are the rows 1 to 13");
                wanted = Some(number);
            }
        }
    }
    let rows: Vec<&'static Row> =
        ROWS.iter().filter(|row| wanted.is_none_or(|wanted| wanted == row.number)).collect();
    let mut progress = Progress::of(2 + rows.len());
    let etcd = progress.step("finding etcd", || debian_package::etcd(tree))?.context("etcd cannot be had")?;
    progress.step("building", || {
        child::stream(tree.cargo().args(["build", "--locked", "--workspace", "--bin", "adit"]), "")?;
        let all =
            ["test", "--locked", "--workspace", "--lib", "--test", "edge", "--test", "chaos", "--no-run"];
        child::stream(tree.cargo().args(all), "")
    })?;
    let mut shown = Vec::new();
    for row in rows {
        let one = progress.step(&format!("row {}: {}", row.number, row.chaos), || {
            let mut shown = Shown { row, figures: Vec::new(), verdict: "passed".to_owned() };
            for (suite, name) in row.tests {
                let mut command = tree.cargo();
                command.args(["test", "--locked", "--workspace"]).args(suite.selection());
                command.args([
                    "--",
                    "--include-ignored",
                    "--nocapture",
                    "--test-threads",
                    "1",
                    "--exact",
                    name,
                ]);
                command.env("ADIT_ETCD", &etcd);
                if is_long {
                    command.env("ADIT_CHAOS", "long");
                }
                shown.take(&mut command)?;
            }
            note(&shown.verdict);
            Ok(shown)
        })?;
        shown.push(one);
    }
    println!();
    for Shown { row, figures, verdict } in &shown {
        println!("{:>2}  {}\n    goal    {}", row.number, row.chaos, row.goal);
        for figure in figures {
            println!("    figure  {figure}");
        }
        println!("    {verdict}\n");
    }
    let missing = shown.iter().filter(|shown| shown.verdict != "passed").count();
    if missing > 0 {
        bail!("{missing} of {} rows are not shown", shown.len());
    }
    progress.finish("all rows are shown");
    Ok(())
}

impl Suite {
    fn selection(self) -> &'static [&'static str] {
        match self {
            Self::Chaos => &["--test", "chaos"],
            Self::Edge => &["--test", "edge"],
            // The one that all are in.
            Self::Library => &["--lib"],
        }
    }
}

impl Shown {
    /// Runs a test and keeps what it says for this table; what else it says passes by.
    fn take(&mut self, command: &mut Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting cargo")?;
        let said = child.stderr.take().context("standard error is piped")?;
        let output = child.stdout.take().context("standard output is piped")?;
        let counted = std::thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .filter(|line| line.contains("test result: ok. 1 passed"))
                .count()
        });
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if let Some(figure) = line.strip_prefix("figure: ") {
                self.figures.push(figure.to_owned());
            } else if let Some(reason) = line.strip_prefix("SKIPPED: ") {
                self.verdict = format!("not shown: {reason}");
            } else {
                println!("      {line}");
            }
        }
        let status = child.wait().context("waiting for cargo")?;
        let passed = counted.join().unwrap_or_default();
        if !status.success() {
            self.verdict = "NOT PASSED".to_owned();
        } else if passed != 1 && self.verdict == "passed" {
            self.verdict = "NOT PASSED: the test is not there".to_owned();
        }
        Ok(())
    }
}

const ROWS: &[Row] = &[
    Row {
        number: 1,
        chaos: "nodes are killed with kill -9, one after the other",
        goal: "idempotent requests: none fails; of others only those that were at the node; well again within 2 s",
        tests: &[(Suite::Chaos, "losses::nodes_that_are_killed_fail_no_idempotent_request")],
    },
    Row {
        number: 2,
        chaos: "each node is drained in turn",
        goal: "no request fails, no WebSocket is cut before the time that a node gives it",
        tests: &[(
            Suite::Chaos,
            "losses::nodes_that_are_drained_in_turn_fail_no_request_and_cut_no_stream_before_its_time",
        )],
    },
    Row {
        number: 3,
        chaos: "a tunnel has hosts in one region alone, and is asked for in the other",
        goal: "added to p50: the line there and back and some tenths of a millisecond; CPU at most 1.9 times that of one node",
        tests: &[(
            Suite::Chaos,
            "hops::a_request_that_crosses_a_second_node_costs_at_most_twice_and_waits_for_the_line_alone",
        )],
    },
    Row {
        number: 4,
        chaos: "etcd stands still, and nodes are killed and started meanwhile",
        goal: "no idempotent request fails; changes get 503; all have caught up within 5 s",
        tests: &[(
            Suite::Chaos,
            "store::without_etcd_everything_is_served_also_by_nodes_that_start_and_changes_are_refused",
        )],
    },
    Row {
        number: 5,
        chaos: "etcd's leader is killed every 5 s under changes",
        goal: "what was acknowledged is at all nodes; p99 until another node knows it below 3 s",
        tests: &[(Suite::Chaos, "store::what_was_acknowledged_while_leaders_die_is_served_by_all")],
    },
    Row {
        number: 6,
        chaos: "a region is cut off from the other one, and healed",
        goal: "each side serves its own; all know what is so within 5 s; no ghosts, in 100,000 worlds of chance",
        tests: &[
            (Suite::Chaos, "cuts::a_region_that_is_cut_off_serves_its_own_and_finds_the_others_again"),
            (Suite::Library, "peers::presence::tests::in_a_hundred_thousand_worlds_no_node_has_ghosts"),
        ],
    },
    Row {
        number: 7,
        chaos: "a node stands still",
        goal: "requests leave it within 1.5 s after it was silent; no POST is done twice",
        tests: &[(
            Suite::Chaos,
            "losses::a_node_that_stands_still_loses_its_requests_to_others_and_nothing_is_done_twice",
        )],
    },
    Row {
        number: 8,
        chaos: "a node claims to have replicas that it has not",
        goal: "POST: none lost, none twice; at most 4 attempts",
        tests: &[(
            Suite::Edge,
            "stale::what_a_node_claims_and_does_not_have_costs_an_attempt_and_no_request_is_lost_or_done_twice",
        )],
    },
    Row {
        number: 9,
        chaos: "etcd is compacted, an old backup is put back, another fleet is in its place",
        goal: "each is noticed; nothing old is served as new",
        tests: &[
            (
                Suite::Library,
                "store::etcd::tests::a_watch_from_before_what_is_kept_is_refused_and_a_list_goes_on",
            ),
            (
                Suite::Library,
                "store::etcd::tests::a_backup_that_was_put_back_is_noticed_even_where_its_revisions_have_passed_ours",
            ),
            (Suite::Library, "store::etcd::tests::another_fleet_in_the_same_place_is_never_served"),
        ],
    },
    Row {
        number: 10,
        chaos: "64 nodes, 100,000 tunnels, of which 5 % change each second",
        goal: "memory below 60 MB, 3 % of a core, what changes is taken within 300 ms (p99)",
        tests: &[(
            Suite::Library,
            "peers::scale::a_hundred_thousand_tunnels_at_sixty_four_nodes_take_little_memory_and_time",
        )],
    },
    Row {
        number: 11,
        chaos: "records that nobody can read",
        goal: "no node stops, all go on with what they knew, and say so",
        tests: &[(Suite::Chaos, "store::records_that_nobody_can_read_stop_nobody_and_all_say_so")],
    },
    Row {
        number: 12,
        chaos: "forged context, a hop limit of 255, the certificate of a node that left, one that has run out",
        goal: "all are refused",
        tests: &[
            (Suite::Edge, "peers::a_node_listens_to_nodes_of_its_fleet_alone_and_hands_nothing_on_for_them"),
            (Suite::Edge, "peers::a_node_that_has_left_is_refused_with_the_certificate_that_it_still_has"),
            (
                Suite::Library,
                "peers::trust::tests::a_certificate_that_has_run_out_or_is_of_another_authority_opens_nothing_on_either_side",
            ),
        ],
    },
    Row {
        number: 13,
        chaos: "all nodes start at once",
        goal: "all serve within 15 s; etcd takes less than 70 % of a core",
        tests: &[(Suite::Chaos, "losses::all_nodes_start_at_once_and_serve_soon")],
    },
];
