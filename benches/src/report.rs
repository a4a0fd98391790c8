//! The table, the ratios, and the floor that must hold.

use std::fmt::Write;

use serde::Serialize;

use crate::load::{Failure, Figures, Throughput};

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

/// Throughput of ours must be at least this part of the copying proxies'.
pub const LEAST_THROUGHPUT: f64 = 0.4;
/// Round trip (p50) of ours must be at most this many times that of the copying proxies.
pub const MOST_ROUND_TRIP: f64 = 2.0;
/// Connections per second that ours must reach.
pub const LEAST_CONNECTIONS: f64 = 800.0;
/// KiB that an idle connection may cost in any process of ours.
pub const MOST_IDLE_KIB: f64 = 64.0;

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

/// One requirement and whether it holds.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The requirement in words, with what was measured.
    pub text: String,
    /// Whether it holds. A figure that could not be measured does not.
    pub holds: bool,
}

/// The floor of the through-a-relay path.
pub fn checks(rows: &[Row]) -> Vec<Check> {
    let (Some(own), Some(floor)) = (figures(rows, OURS), figures(rows, FLOOR)) else {
        return vec![Check {
            text: format!("\"{OURS}\" and \"{FLOOR}\" can be measured"),
            holds: false,
        }];
    };
    let mut checks = Vec::new();
    for (name, get) in STREAMS {
        let ratio = match (get(own), get(floor)) {
            (Ok(own), Ok(floor)) => own.gbit_per_s / floor.gbit_per_s,
            _ => 0.0,
        };
        checks.push(Check {
            text: format!("{name}: {ratio:.2} × the copying proxies, at least {LEAST_THROUGHPUT}"),
            holds: ratio >= LEAST_THROUGHPUT,
        });
    }
    let ratio = match (&own.round_trip, &floor.round_trip) {
        (Ok(own), Ok(floor)) => own.p50_us / floor.p50_us,
        _ => f64::INFINITY,
    };
    checks.push(Check {
        text: format!("round trip p50: {ratio:.2} × the copying proxies, at most {MOST_ROUND_TRIP}"),
        holds: ratio <= MOST_ROUND_TRIP,
    });
    let connections = own.connections_per_s.as_ref().copied().unwrap_or(0.0);
    checks.push(Check {
        text: format!("{connections:.0} connections/s, at least {LEAST_CONNECTIONS}"),
        holds: connections >= LEAST_CONNECTIONS,
    });
    let idle = own
        .idle
        .as_ref()
        .and_then(|idle| idle.as_ref().ok())
        .map_or(f64::INFINITY, crate::load::Idle::worst);
    checks.push(Check {
        text: format!(
            "{idle:.1} KiB for each idle connection in the largest process, at most {MOST_IDLE_KIB}"
        ),
        holds: idle <= MOST_IDLE_KIB,
    });
    checks
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
    fn a_path_that_meets_every_requirement_passes() {
        let rows = [
            row(FLOOR, 10.0, 150.0, 3000.0, 400.0),
            row(OURS, 4.1, 290.0, 801.0, 63.0),
        ];
        assert!(
            checks(&rows).iter().all(|check| check.holds),
            "{:?}",
            checks(&rows)
        );
    }

    #[test]
    fn each_requirement_can_fail_alone() {
        let floor = || row(FLOOR, 10.0, 150.0, 3000.0, 400.0);
        let failing = |own: Row| {
            checks(&[floor(), own])
                .iter()
                .filter(|check| !check.holds)
                .count()
        };
        assert_eq!(failing(row(OURS, 3.9, 290.0, 801.0, 63.0)), 4);
        assert_eq!(failing(row(OURS, 4.1, 310.0, 801.0, 63.0)), 1);
        assert_eq!(failing(row(OURS, 4.1, 290.0, 799.0, 63.0)), 1);
        assert_eq!(failing(row(OURS, 4.1, 290.0, 801.0, 65.0)), 1);
    }

    #[test]
    fn what_could_not_be_measured_does_not_pass() {
        let mut own = row(OURS, 5.0, 150.0, 3000.0, 4.0);
        own.figures.as_mut().unwrap().up_8 = Err(Failure("no byte arrived".into()));
        let rows = [row(FLOOR, 10.0, 150.0, 3000.0, 400.0), own];
        assert_eq!(checks(&rows).iter().filter(|check| !check.holds).count(), 1);
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
