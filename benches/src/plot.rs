//! Curves as SVG, for documents.

use std::path::Path;

use plotters::prelude::*;

use crate::load::Failure;
use crate::relay_scale::Figures;

/// Size in pixels.
const SIZE: (u32, u32) = (1080, 380);
const COLOUR: RGBColor = RGBColor(31, 95, 165);

/// Cost against the number of members: memory, time to register again, CPU time of a message. (How many messages go through in a
/// second depends on what else the machine does; the table says it.)
///
/// # Errors
/// When the file cannot be written.
pub fn relay_scale(figures: &[Figures], file: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(Failure::of)?;
        let panels = area.split_evenly((1, 3));
        type Get = fn(&Figures) -> f64;
        let curves: [(&str, Get); 3] = [
            ("KiB of the project node for each member", |figures| figures.kib),
            ("s until all were registered again", |figures| figures.again),
            ("CPU µs of the project node for each message", |figures| {
                figures.message_cpu
            }),
        ];
        for (panel, (title, get)) in panels.iter().zip(curves) {
            let points: Vec<(f64, f64)> = figures
                .iter()
                .map(|figures| (figures.members as f64, get(figures)))
                .collect();
            curve(panel, title, &points)?;
        }
        area.present().map_err(Failure::of)?;
    }
    std::fs::write(file, text)?;
    Ok(())
}

fn curve(
    panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    points: &[(f64, f64)],
) -> Result<(), Failure> {
    let most = |get: fn(&(f64, f64)) -> f64| points.iter().map(get).fold(0.0, f64::max);
    let (widest, highest) = (most(|point| point.0), most(|point| point.1));
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 16))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(52)
        // From nothing: a cost that stays the same has to look so.
        .build_cartesian_2d(0.0..widest * 1.08, 0.0..highest * 1.25)
        .map_err(Failure::of)?;
    chart
        .configure_mesh()
        .x_desc("members")
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| {
            if highest < 10.0 {
                format!("{y:.1}")
            } else {
                format!("{y:.0}")
            }
        })
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .light_line_style(WHITE.mix(0.0))
        .draw()
        .map_err(Failure::of)?;
    chart
        .draw_series(LineSeries::new(points.iter().copied(), COLOUR.stroke_width(2)))
        .map_err(Failure::of)?;
    chart
        .draw_series(points.iter().map(|&point| Circle::new(point, 4, COLOUR.filled())))
        .map_err(Failure::of)?;
    Ok(())
}
