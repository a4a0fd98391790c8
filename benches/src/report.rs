//! The table, the ratios, and the aims.

use std::fmt::{Display, Write};

use serde::Serialize;

use crate::checks::Check;
use crate::load::{Failure, Figures, RoundTrip, Throughput};

/// One path of the comparison.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// What was measured, or why the path could not be set up.
    pub figures: Result<Figures, Failure>,
}

/// Name of the path that the others are compared with.
pub const FLOOR: &str = "three copying proxies";
/// Name of the path that `--check` looks at.
pub const OURS: &str = "portolan through a relay";

/// Name of the path of a tool that many use for this, without a relay.
pub const STUNNEL: &str = "stunnel pair, no relay";

/// Throughput of ours through a relay: at least this part of the copying proxies'.
pub const LEAST_THROUGHPUT: f64 = 0.9;
/// CPU time of ours for each GiB: at most so many times that of the copying proxies.
pub const MOST_CPU: f64 = 1.25;
/// Round trip of ours, p50 and p99: at most so many times that of the copying proxies.
pub const MOST_ROUND_TRIP: f64 = 1.05;
/// Connections per second: at least this part of the copying proxies'.
pub const LEAST_CONNECTIONS: f64 = 0.9;
/// Throughput in relation to a pair of stunnel, which has no relay.
pub const LEAST_OF_STUNNEL: f64 = 1.0;
/// KiB that an idle connection may cost in any process of ours.
pub const MOST_IDLE_KIB: f64 = 4.0;

type Stream = fn(&Figures) -> &Result<Throughput, Failure>;

const STREAMS: [(&str, Stream); 4] = [
    ("up, 1 stream", |f| &f.up_1),
    ("up, 8 streams", |f| &f.up_8),
    ("down, 1 stream", |f| &f.down_1),
    ("down, 8 streams", |f| &f.down_8),
];

fn cell<T>(result: &Result<T, Failure>, show: impl FnOnce(&T) -> String) -> String {
    result.as_ref().map_or_else(|_| "failed".into(), show)
}

/// The table in Markdown, as documents have it.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "path",
            "Gbit/s up 1",
            "up 8",
            "down 1",
            "down 8",
            "CPU s/GiB up 8",
            "down 8",
            "RTT p50 µs",
            "p99",
            "connections/s",
            "KiB/idle conn. and process",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for row in rows {
        let mut line = vec![row.name.to_owned()];
        match &row.figures {
            Ok(figures) => {
                line.extend(STREAMS.map(|(_, get)| cell(get(figures), |t| format!("{:.2}", t.gbit_per_s))));
                line.extend([&figures.up_8, &figures.down_8].map(|stream| {
                    cell(stream, |t| {
                        t.cpu_s_per_gib.map_or("–".into(), |cpu| format!("{cpu:.2}"))
                    })
                }));
                line.push(cell(&figures.round_trip, |r| format!("{:.0}", r.p50_us)));
                line.push(cell(&figures.round_trip, |r| format!("{:.0}", r.p99_us)));
                line.push(cell(&figures.connections_per_s, |c| format!("{c:.0}")));
                line.push(
                    figures
                        .idle
                        .as_ref()
                        .map_or("–".into(), |idle| cell(idle, |i| format!("{:.1}", i.mean()))),
                );
            }
            Err(_) => line.extend(std::iter::repeat_n("–".to_owned(), 10)),
        }
        lines.push(line);
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|c| {
            lines
                .iter()
                .map(|line| line[c].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (value, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {value}{} ", " ".repeat(width - value.chars().count()));
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// What failed, one line each.
pub fn failures(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        match &row.figures {
            Err(failure) => lines.push(format!("{}: {failure}", row.name)),
            Ok(figures) => {
                let mut note = |what: &str, failure: Option<&Failure>| {
                    if let Some(failure) = failure {
                        lines.push(format!("{}, {what}: {failure}", row.name));
                    }
                };
                for (name, get) in STREAMS {
                    note(name, get(figures).as_ref().err());
                }
                note("round trip", figures.round_trip.as_ref().err());
                note("connections", figures.connections_per_s.as_ref().err());
                note(
                    "idle connections",
                    figures.idle.as_ref().and_then(|idle| idle.as_ref().err()),
                );
            }
        }
    }
    lines
}

fn figures<'a>(rows: &'a [Row], name: &str) -> Option<&'a Figures> {
    rows.iter()
        .find(|row| row.name == name)
        .and_then(|row| row.figures.as_ref().ok())
}

/// Each path that encrypts, in relation to the copying proxies: one line each.
pub fn ratios(rows: &[Row]) -> Vec<String> {
    let Some(floor) = figures(rows, FLOOR) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.name != FLOOR) {
        let Ok(own) = &row.figures else { continue };
        let mut parts = Vec::new();
        for (name, get) in STREAMS {
            if let (Ok(own), Ok(floor)) = (get(own), get(floor)) {
                parts.push(format!("{name} {:.2}", own.gbit_per_s / floor.gbit_per_s));
            }
        }
        if let (Ok(own), Ok(floor)) = (&own.round_trip, &floor.round_trip) {
            parts.push(format!("RTT p50 {:.2}", own.p50_us / floor.p50_us));
        }
        if let (Ok(own), Ok(floor)) = (&own.connections_per_s, &floor.connections_per_s) {
            parts.push(format!("connections {:.2}", own / floor));
        }
        lines.push(format!("{}: {}", row.name, parts.join(", ")));
    }
    lines
}

/// The aims of the path through a relay, each as a ratio to what was measured beside it.
pub fn checks(rows: &[Row]) -> Vec<Check> {
    let (Some(own), Some(floor)) = (figures(rows, OURS), figures(rows, FLOOR)) else {
        let what = format!("\"{OURS}\" and \"{FLOOR}\"");
        return vec![Check::missed(what, "one of them could not be set up")];
    };
    let mut checks = Vec::new();
    for (name, get) in STREAMS {
        let what = format!("{name}, Gbit/s, × the copying proxies");
        checks.push(ratio(
            what,
            get(own),
            get(floor),
            |t| t.gbit_per_s,
            Side::Least(LEAST_THROUGHPUT),
        ));
    }
    for (name, get) in STREAMS {
        let what = format!("{name}, CPU s/GiB, × the copying proxies");
        let cpu = |t: &Throughput| t.cpu_s_per_gib.unwrap_or(f64::NAN);
        checks.push(ratio(what, get(own), get(floor), cpu, Side::Most(MOST_CPU)));
    }
    type Time = fn(&RoundTrip) -> f64;
    let times: [(&str, Time); 2] = [("p50", |r| r.p50_us), ("p99", |r| r.p99_us)];
    for (name, get) in times {
        let what = format!("round trip {name}, × the copying proxies");
        checks.push(ratio(
            what,
            &own.round_trip,
            &floor.round_trip,
            get,
            Side::Most(MOST_ROUND_TRIP),
        ));
    }
    checks.push(ratio(
        "connections/s, × the copying proxies",
        &own.connections_per_s,
        &floor.connections_per_s,
        |rate| *rate,
        Side::Least(LEAST_CONNECTIONS),
    ));
    match figures(rows, STUNNEL) {
        Some(stunnel) => {
            for (name, get) in STREAMS {
                let what = format!("{name}, Gbit/s, × a pair of stunnel without relay");
                let side = Side::Least(LEAST_OF_STUNNEL);
                checks.push(ratio(what, get(own), get(stunnel), |t| t.gbit_per_s, side));
            }
        }
        None => checks.push(Check::missed("throughput of stunnel", "it could not be set up")),
    }
    let what = "KiB of an idle connection in the largest process";
    checks.push(match &own.idle {
        Some(Ok(idle)) => Check::at_most(what, idle.worst(), MOST_IDLE_KIB),
        Some(Err(failure)) => Check::missed(what, failure),
        None => Check::missed(what, "it was not asked for"),
    });
    checks
}

enum Side {
    Least(f64),
    Most(f64),
}

fn ratio<T>(
    what: impl Display,
    own: &Result<T, Failure>,
    other: &Result<T, Failure>,
    get: impl Fn(&T) -> f64,
    side: Side,
) -> Check {
    match (own, other) {
        (Ok(own), Ok(other)) => match side {
            Side::Least(aim) => Check::at_least(what, get(own) / get(other), aim),
            Side::Most(aim) => Check::at_most(what, get(own) / get(other), aim),
        },
        (Err(failure), _) | (_, Err(failure)) => Check::missed(what, failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Idle, RoundTrip};

    fn row(name: &'static str, gbit: f64, rtt: f64, connections: f64, idle: f64) -> Row {
        let stream = || {
            Ok(Throughput {
                gbit_per_s: gbit,
                cpu_s_per_gib: Some(1.0),
            })
        };
        let figures = Figures {
            up_1: stream(),
            up_8: stream(),
            down_1: stream(),
            down_8: stream(),
            round_trip: Ok(RoundTrip {
                p50_us: rtt,
                p99_us: 2.0 * rtt,
            }),
            connections_per_s: Ok(connections),
            idle: Some(Ok(Idle {
                per_process: vec![idle, idle / 2.0],
            })),
        };
        Row {
            name,
            figures: Ok(figures),
        }
    }

    #[test]
    fn a_path_that_meets_every_aim_passes() {
        let rows = [
            row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
            row(STUNNEL, 8.9, 150.0, 90.0, 400.0),
            row(OURS, 9.1, 157.0, 2701.0, 3.9),
        ];
        assert!(
            checks(&rows).iter().all(|check| check.holds),
            "{:?}",
            checks(&rows)
        );
    }

    #[test]
    fn each_aim_can_be_missed_alone() {
        let missed = |own: Row| {
            let rows = [
                row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
                row(STUNNEL, 5.0, 150.0, 90.0, 400.0),
                own,
            ];
            checks(&rows).iter().filter(|check| !check.holds).count()
        };
        assert_eq!(missed(row(OURS, 8.9, 150.0, 3000.0, 3.0)), 4);
        assert_eq!(missed(row(OURS, 9.1, 158.0, 3000.0, 3.0)), 2);
        assert_eq!(missed(row(OURS, 9.1, 150.0, 2699.0, 3.0)), 1);
        assert_eq!(missed(row(OURS, 9.1, 150.0, 3000.0, 4.1)), 1);
        let mut expensive = row(OURS, 9.1, 150.0, 3000.0, 3.0);
        if let Ok(Ok(up)) = expensive.figures.as_mut().map(|figures| figures.up_1.as_mut()) {
            up.cpu_s_per_gib = Some(1.26);
        }
        assert_eq!(missed(expensive), 1);
        let rows = [
            row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
            row(STUNNEL, 9.6, 150.0, 90.0, 400.0),
            row(OURS, 9.5, 150.0, 3000.0, 3.0),
        ];
        assert_eq!(checks(&rows).iter().filter(|check| !check.holds).count(), 4);
    }

    #[test]
    fn rounds_become_one_by_their_medians() {
        let rounds: Vec<Figures> = [9.0, 1.0, 5.0]
            .iter()
            .filter_map(|&gbit| row(OURS, gbit, 10.0 * gbit, 100.0 * gbit, 3.0).figures.ok())
            .collect();
        let middle = Figures::middle(&rounds).unwrap();
        assert_eq!(middle.up_8.unwrap().gbit_per_s, 5.0);
        assert_eq!(middle.round_trip.unwrap().p99_us, 100.0);
        assert_eq!(middle.connections_per_s.unwrap(), 500.0);
    }

    #[test]
    fn what_could_not_be_measured_does_not_pass() {
        let mut own = row(OURS, 10.0, 150.0, 3000.0, 4.0);
        own.figures.as_mut().unwrap().up_8 = Err(Failure("no byte arrived".into()));
        let rows = [
            row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
            row(STUNNEL, 5.0, 150.0, 90.0, 400.0),
            own,
        ];
        // Throughput and CPU time beside the proxies', throughput beside stunnel's.
        assert_eq!(checks(&rows).iter().filter(|check| !check.holds).count(), 3);
        assert_eq!(
            failures(&rows),
            ["portolan through a relay, up, 8 streams: no byte arrived"]
        );
        assert!(table(&rows).contains("| failed "));
        let none = [
            row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
            Row {
                name: OURS,
                figures: Err(Failure("no".into())),
            },
        ];
        assert!(checks(&none).iter().any(|check| !check.holds));
    }
}
