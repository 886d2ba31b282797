//! The results as one picture: a panel a figure, a bar a contender with its spread, and a line where the goal is. SVG
//! by plotters; PNG made of it by resvg with the system's DejaVu Sans.

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use crate::figures::{FIGURES, Figure, NETD};
use crate::measure::{Name, Results, Summary};
use crate::report::table::number;

const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (520, 210);
const HEAD: u32 = 48;
const FONT: &str = "DejaVu Sans";

/// `None` when nothing was measured that could be drawn.
pub(crate) fn svg(results: &Results, title: &str) -> Result<Option<String>> {
    let panels: Vec<_> = FIGURES.iter().map(|figure| Panel::of(figure, results)).collect();
    let panels: Vec<_> = panels.into_iter().flatten().collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * u32::try_from(rows)? + HEAD);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let (head, body) = area.split_vertically(HEAD);
        head.draw_text(title, &(FONT, 18).into_text_style(&head), (16, 14))
            .map_err(|error| failed(&error))?;
        for (panel, area) in panels.iter().zip(body.split_evenly((rows, COLUMNS))) {
            panel.draw(&area).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(Some(text))
}

pub(crate) fn png(svg: &str) -> Result<Vec<u8>> {
    let mut options = usvg::Options { font_family: FONT.into(), ..usvg::Options::default() };
    options.fontdb_mut().load_system_fonts();
    let tree = usvg::Tree::from_str(svg, &options).context("read the plot")?;
    let size = tree.size().to_int_size();
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).context("make room for the plot")?;
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixels.as_mut());
    pixels.encode_png().context("encode the plot")
}

struct Panel {
    title: String,
    bars: Vec<(Name, Summary)>,
    /// The goal against the base, or of the figure itself.
    goal: Option<f64>,
}

impl Panel {
    /// Ratios where there is a base, values elsewhere. Netd alone, or nothing but zeros, is for the table.
    fn of(figure: &Figure, results: &Results) -> Option<Self> {
        let mut names = results.contenders(figure.id);
        names.sort_by_key(|name| *name != NETD);
        if names.len() < 2 {
            return None;
        }
        let against = names.contains(&figure.base);
        let bar = |name: &Name| match against {
            true => results.ratio(figure.id, name, figure.base),
            false => results.value(figure.id, name),
        };
        let bars: Vec<_> = names.iter().filter_map(|name| Some((*name, bar(name)?))).collect();
        if bars.iter().all(|(_, summary)| summary.greatest == 0.0) {
            return None;
        }
        let unit = if against { format!("ratio to {}", figure.base) } else { figure.unit.into() };
        let goal = figure.goals.iter().find_map(|goal| match against {
            true => goal.ratio_to(figure.base),
            false => goal.value(),
        });
        let less = figure.goals.iter().any(|goal| goal.wants_less());
        let notes: Vec<_> = [unit.as_str(), if less { "less is better" } else { "" }]
            .into_iter()
            .filter(|note| !note.is_empty())
            .collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        Some(Self { title: format!("{} {}{notes}", figure.row, figure.what).trim().into(), bars, goal })
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Drawing> {
        let area = area.margin(6, 6, 12, 12);
        area.draw_text(&self.title, &(FONT, 13).into_text_style(&area), (4, 2))?;
        let (width, height) = area.dim_in_pixel();
        let longest = self.bars.iter().map(|(_, summary)| summary.greatest).chain(self.goal);
        let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
        let (left, top) = (NAMES, 24);
        let room = f64::from(width) - f64::from(left) - f64::from(VALUES);
        let x = |value: f64| left + (value / longest * room) as i32;
        let step = ((height as i32 - top) / self.bars.len().max(1) as i32).min(30);
        for (place, (name, summary)) in (0i32..).zip(&self.bars) {
            let (upper, lower) = (top + place * step + 3, top + (place + 1) * step - 3);
            let middle = i32::midpoint(upper, lower);
            let color = if *name == NETD { OURS } else { THEIRS };
            let text = (FONT, 12).into_text_style(&area);
            area.draw_text(name, &text, (4, middle - 6))?;
            area.draw(&Rectangle::new([(left, upper), (x(summary.median), lower)], color.filled()))?;
            let spread = vec![(x(summary.least), middle), (x(summary.greatest), middle)];
            area.draw(&PathElement::new(spread, BLACK))?;
            let end = x(summary.greatest.max(summary.median)) + 5;
            area.draw_text(&number(summary.median), &text, (end, middle - 6))?;
        }
        if let Some(goal) = self.goal {
            let bottom = top + step * self.bars.len() as i32;
            area.draw(&PathElement::new(vec![(x(goal), top), (x(goal), bottom)], GOAL.stroke_width(2)))?;
        }
        Ok(())
    }
}

type Drawing = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

fn failed(error: &Drawing) -> anyhow::Error {
    anyhow!("draw the plot: {error}")
}

/// Pixels for the names on the left and the values on the right.
const NAMES: i32 = 110;
const VALUES: i32 = 60;
const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const THEIRS: RGBColor = RGBColor(0xb0, 0xb7, 0xbf);
const GOAL: RGBColor = RGBColor(0xd6, 0x27, 0x28);
