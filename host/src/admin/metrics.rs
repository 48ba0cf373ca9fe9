//! `/metrics`, under the reference's names where they mean the same.

use std::sync::atomic::{AtomicU64, Ordering};

use adit_metrics::{Kind, Page, number as float, process};
use adit_traces::Tracer;

use super::Admin;
use crate::generation::Generation;
use crate::generation::lifetime::Totals;
use crate::revision::remote_version;
use crate::tunnel::status::QuicPath;

/// Rules and plugins with lines of their own; the others share one, so that no document makes the page
/// grow without end.
const MOST_LABELS: usize = 200;
/// Bytes of a page, about.
const USUAL: usize = 16 * 1024;
const OTHERS: &str = "(others)";

/// What is counted, at this moment.
pub(super) fn page(admin: &Admin) -> String {
    let generation = admin.current.load();
    let history = admin.reload.history();
    let (retired, forgotten) = admin.reload.retired_generations().known();
    let mut page = Page::with_capacity(USUAL);

    page.family("build_info", Kind::Gauge, "Version of this program");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);

    page.single(
        "cloudflared_orchestration_config_version",
        Kind::Gauge,
        "Version of the configuration that the edge has pushed",
        f64::from(remote_version(history)),
    );
    page.single(
        "adit_generation",
        Kind::Gauge,
        "Number of the generation that serves",
        float(generation.number),
    );
    let degraded = if history.degraded().is_some() { 1.0 } else { 0.0 };
    page.single(
        "adit_config_degraded",
        Kind::Gauge,
        "1 while the document cannot be used and an earlier generation serves",
        degraded,
    );
    let counts = history.counts();
    page.family("adit_config_revisions_total", Kind::Counter, "Revisions by verdict");
    page.sample("adit_config_revisions_total", &[("verdict", "applied")], float(counts.applied));
    page.sample("adit_config_revisions_total", &[("verdict", "refused")], float(counts.refused));

    let retired_generations = || retired.iter().chain([&generation.lifetime]);
    let all: u64 = retired_generations().map(|lifetime| lifetime.requests().0).sum();
    let open: u64 = retired_generations().map(|lifetime| lifetime.requests().1).sum();
    page.single("cloudflared_tunnel_total_requests", Kind::Counter, "Requests", float(all + forgotten));
    page.family("cloudflared_tunnel_response_by_code", Kind::Counter, "Answers by status");
    for (code, count) in generation.lifetime.codes() {
        page.sample(
            "cloudflared_tunnel_response_by_code",
            &[("status_code", &code.to_string())],
            float(count),
        );
    }
    page.single(
        "cloudflared_tunnel_concurrent_requests_per_tunnel",
        Kind::Gauge,
        "Requests under way",
        float(open),
    );
    page.family("adit_generation_requests_total", Kind::Counter, "Requests by generation, of the last ones");
    for lifetime in retired_generations() {
        let number = lifetime.number.to_string();
        page.sample(
            "adit_generation_requests_total",
            &[("generation", &number)],
            float(lifetime.requests().0),
        );
    }
    page.family("adit_generation_requests_open", Kind::Gauge, "Requests under way by generation");
    for lifetime in retired_generations() {
        let number = lifetime.number.to_string();
        page.sample(
            "adit_generation_requests_open",
            &[("generation", &number)],
            float(lifetime.requests().1),
        );
    }
    rules(&mut page, &generation);
    plugins(&mut page, &generation);
    circuits(&mut page, admin);
    connections(&mut page, admin);
    calls(&mut page, admin);
    held(&mut page, admin);
    traces(&mut page, admin);
    tail(&mut page, admin);
    turned_away(&mut page, admin);
    process::write(&mut page);
    page.finish()
}

fn rules(page: &mut Page, generation: &Generation) {
    let mut totals: Vec<(&str, Totals)> = Vec::new();
    let mut others = Totals::default();
    for rule in generation.rules() {
        if totals.iter().any(|(name, _)| *name == rule.name) {
            // Rules of one name count together.
        } else if totals.len() < MOST_LABELS {
            totals.push((&rule.name, rule.metrics.totals()));
        } else {
            others.add(&rule.metrics.totals());
        }
    }
    if generation.rules().len() > MOST_LABELS {
        totals.push((OTHERS, others));
    }
    let errors = totals.iter().map(|(_, totals)| totals.unreachable).sum();
    page.single(
        "cloudflared_tunnel_request_errors",
        Kind::Counter,
        "Requests whose origin was not reached",
        float(errors),
    );
    page.family(
        "adit_rule_requests_total",
        Kind::Counter,
        "Requests by rule and first digit of the status, 0 for none",
    );
    for (rule, totals) in &totals {
        for (class, count) in totals.statuses.iter().enumerate().filter(|(_, count)| **count > 0) {
            let class = if class == 0 { "none".to_owned() } else { format!("{class}xx") };
            page.sample("adit_rule_requests_total", &[("rule", rule), ("status", &class)], float(*count));
        }
    }
    page.family("adit_rule_response_bytes_total", Kind::Counter, "Bytes of answers by rule");
    for (rule, totals) in &totals {
        page.sample("adit_rule_response_bytes_total", &[("rule", rule)], float(totals.bytes));
    }
    page.family("adit_rule_broken_total", Kind::Counter, "Answers that were not sent to their end, by rule");
    for (rule, totals) in &totals {
        page.sample("adit_rule_broken_total", &[("rule", rule)], float(totals.broken));
    }
    let name = "adit_rule_duration_seconds";
    page.family(name, Kind::Histogram, "Time from the head of a request to the end of its answer, by rule");
    for (rule, totals) in &totals {
        page.histogram(name, &[("rule", rule)], &totals.durations);
    }
}

fn plugins(page: &mut Page, generation: &Generation) {
    let plugins: Vec<_> = generation.plugins().take(MOST_LABELS).collect();
    page.family("adit_plugin_calls_total", Kind::Counter, "Calls of plugins since they were loaded");
    for plugin in &plugins {
        page.sample("adit_plugin_calls_total", &[("plugin", plugin.name())], float(plugin.counters().calls));
    }
    page.family(
        "adit_plugin_failures_total",
        Kind::Counter,
        "Calls that failed since the plugin was loaded, by kind",
    );
    for plugin in &plugins {
        let counts = plugin.counters();
        for (kind, count) in [
            ("fault", counts.faults),
            ("trap", counts.traps),
            ("timeout", counts.timeouts),
            ("busy", counts.busy),
            ("invalid", counts.invalid),
        ] {
            let labels = [("plugin", plugin.name()), ("kind", kind)];
            page.sample("adit_plugin_failures_total", &labels, float(count));
        }
    }
}

/// Bytes both ways between visitors and services.
fn circuits(page: &mut Page, admin: &Admin) {
    let totals = admin.circuits.totals();
    page.single("adit_tcp_circuits", Kind::Gauge, "Circuits that are open", float(totals.open as u64));
    let name = "adit_tcp_circuits_ended_total";
    page.family(name, Kind::Counter, "Circuits that have ended, by reason");
    for (end, count) in totals.ended {
        page.sample(name, &[("reason", end.word())], float(count));
    }
    page.single(
        "adit_tcp_circuits_refused_total",
        Kind::Counter,
        "Circuits for which there was no place, [tcp] most-circuits",
        float(totals.refused),
    );
    let name = "adit_tcp_bytes_total";
    page.family(name, Kind::Counter, "Bytes that circuits have carried, by whose they were");
    page.sample(name, &[("from", "visitor")], float(totals.received));
    page.sample(name, &[("from", "service")], float(totals.sent));
}

fn connections(page: &mut Page, admin: &Admin) {
    let status = &admin.health.shared.status;
    page.single(
        "cloudflared_tunnel_ha_connections",
        Kind::Gauge,
        "Connections that serve",
        float(status.connected() as u64),
    );
    let name = "cloudflared_tunnel_max_concurrent_requests_per_tunnel";
    page.family(name, Kind::Gauge, "The most requests at once on a connection, so far");
    for (index, peak) in status.peaks().enumerate() {
        page.sample(name, &[("connection_id", &index.to_string())], float(peak));
    }
    let name = "cloudflared_tunnel_user_hostnames_counts";
    page.family(name, Kind::Counter, "The address of a quick tunnel");
    if let Some(hostname) = &admin.quick_tunnel {
        page.sample(name, &[("userHostname", &format!("https://{hostname}"))], 1.0);
    }
    page.family("cloudflared_tunnel_server_locations", Kind::Gauge, "Where each connection leads");
    for slot in status.slots() {
        if let Some(location) = &slot.location {
            let index = slot.index.to_string();
            let labels = [("connection_id", index.as_str()), ("edge_location", location)];
            page.sample("cloudflared_tunnel_server_locations", &labels, 1.0);
        }
    }
    let tunnel = admin.health.shared.identity.credentials.tunnel_id.to_string();
    page.family("tunnel_ids", Kind::Gauge, "The tunnel that each connection serves");
    for slot in status.slots().iter().filter(|slot| slot.location.is_some()) {
        let index = slot.index.to_string();
        page.sample("tunnel_ids", &[("tunnel_id", &tunnel), ("ha_conn_id", &index)], 1.0);
    }
    let counts = status.counts();
    page.single(
        "quic_client_total_connections",
        Kind::Counter,
        "Connections over QUIC that served",
        of(&counts.quic),
    );
    let paths: Vec<_> =
        status.slots().into_iter().filter_map(|slot| Some((slot.index.to_string(), slot.path?))).collect();
    let mut quic = |name: &str, kind: Kind, help: &str, value: fn(&QuicPath) -> f64| {
        page.family(name, kind, help);
        for (index, path) in &paths {
            page.sample(name, &[("conn_index", index)], value(path));
        }
    };
    let milliseconds = |path: &QuicPath| path.round_trip.as_secs_f64() * 1e3;
    quic("quic_client_smoothed_rtt", Kind::Gauge, "Round trip, milliseconds", milliseconds);
    quic("quic_client_mtu", Kind::Gauge, "Largest datagram, bytes", |path| f64::from(path.mtu));
    quic("quic_client_congestion_window", Kind::Gauge, "Congestion window, bytes", |path| {
        float(path.congestion_window)
    });
    quic("quic_client_sent_bytes", Kind::Counter, "Bytes sent", |path| float(path.sent_bytes));
    quic("quic_client_receive_bytes", Kind::Counter, "Bytes received", |path| float(path.received_bytes));
    page.family("quic_client_lost_packets", Kind::Counter, "Packets that were lost");
    for (index, path) in &paths {
        let labels = [("conn_index", index.as_str()), ("reason", "all")];
        page.sample("quic_client_lost_packets", &labels, float(path.lost_packets));
    }
}

/// What the host asked of the edge, and what came of it.
fn calls(page: &mut Page, admin: &Admin) {
    let counts = admin.health.shared.status.counts();
    let register = ("rpcName", "registerConnection");
    page.family(
        "cloudflared_tunnel_tunnel_register_success",
        Kind::Counter,
        "Connections that were registered",
    );
    page.sample("cloudflared_tunnel_tunnel_register_success", &[register], of(&counts.registered));
    page.family("cloudflared_tunnel_tunnel_register_fail", Kind::Counter, "Registrations that were refused");
    let labels = [("error", "refused"), register];
    page.sample("cloudflared_tunnel_tunnel_register_fail", &labels, of(&counts.refused));
    page.family("cloudflared_tunnel_tunnel_rpc_fail", Kind::Counter, "Calls of the edge that got no answer");
    let labels = [("error", "unanswered"), register];
    page.sample("cloudflared_tunnel_tunnel_rpc_fail", &labels, of(&counts.unanswered));
    page.single(
        "cloudflared_config_local_config_pushes",
        Kind::Counter,
        "Reports of the local configuration to the edge",
        of(&counts.reported) + of(&counts.unreported),
    );
    page.single(
        "cloudflared_config_local_config_pushes_errors",
        Kind::Counter,
        "Reports that the edge did not take",
        of(&counts.unreported),
    );
}

/// What peers do not take, and the flows that were cut for it.
fn held(page: &mut Page, admin: &Admin) {
    let (held, too_slow, shed) = admin.health.shared.account.totals();
    page.single("adit_held_bytes", Kind::Gauge, "Bytes held for peers that do not take them", float(held));
    let limit = float(admin.health.shared.account.limits().held);
    page.single("adit_held_limit_bytes", Kind::Gauge, "The most of them, [bodies] held", limit);
    let name = "adit_flows_cut_total";
    page.family(
        name,
        Kind::Counter,
        "Bodies that were cut off because their peers took too little, by reason",
    );
    page.sample(name, &[("reason", "too-slow")], float(too_slow));
    page.sample(name, &[("reason", "shed")], float(shed));
}

/// What became of spans.
fn traces(page: &mut Page, admin: &Admin) {
    let told = admin.tracer.as_ref().map(Tracer::told).unwrap_or_default();
    let name = "adit_trace_spans_total";
    page.family(
        name,
        Kind::Counter,
        "Spans that the collector of [traces] has taken, and those that were dropped",
    );
    page.sample(name, &[("outcome", "sent")], float(told.sent));
    page.sample(name, &[("outcome", "dropped")], float(told.dropped));
}

fn tail(page: &mut Page, admin: &Admin) {
    page.single(
        "adit_log_tail_dropped_total",
        Kind::Counter,
        "Lines of the log that who watches it through the edge was not told, because there were too many",
        float(admin.tail.dropped()),
    );
}

fn turned_away(page: &mut Page, admin: &Admin) {
    let name = "adit_turned_away_total";
    page.family(name, Kind::Counter, "Clients of the admin API who had to make room for others, by listener");
    page.sample(name, &[("listener", "admin")], float(admin.rooms.admin.turned_away()));
    page.sample(name, &[("listener", "probes")], float(admin.rooms.probes.turned_away()));
}

fn of(count: &AtomicU64) -> f64 {
    float(count.load(Ordering::Relaxed))
}
