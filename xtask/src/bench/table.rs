//! The table for people: medians, beside the hand-written program's.

use std::fmt::Write;

use super::figure::Figure;

/// One line for each benchmark, question, engine and metric, in the order they first came.
pub fn table(figures: &[Figure]) -> String {
    let groups = groups(figures);
    let width = groups.iter().map(|group| group[0].question().len()).max().unwrap_or(0).max(4);
    let mut table = format!(
        "{:<22} {:<10} {:<width$}  {:<14} {:>14} {:<6} {:>8}\n",
        "bench", "engine", "load", "metric", "median", "unit", "of hand"
    );
    let mut disturbed = false;
    for group in &groups {
        let first = group[0];
        let ratio = match of_hand(first, median(group), &groups) {
            Some(ratio) => format!("{ratio:.2}"),
            None => "-".to_owned(),
        };
        let mark = if group.iter().any(|figure| figure.is_disturbed()) { " !" } else { "" };
        disturbed |= !mark.is_empty();
        writeln!(
            table,
            "{:<22} {:<10} {:<width$}  {:<14} {:>14} {:<6} {:>8}{mark}",
            first.bench,
            first.engine,
            first.question(),
            first.metric,
            readable(median(group)),
            first.unit,
            ratio
        )
        .expect("a string takes all");
    }
    if disturbed {
        table += "! others used the machine meanwhile: nothing may be concluded, not even a ratio\n";
    }
    table
}

fn groups(figures: &[Figure]) -> Vec<Vec<&Figure>> {
    let mut groups: Vec<Vec<&Figure>> = Vec::new();
    for figure in figures {
        let same = |group: &&mut Vec<&Figure>| {
            let first = group[0];
            first.bench == figure.bench
                && first.engine == figure.engine
                && first.metric == figure.metric
                && first.question() == figure.question()
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(figure),
            None => groups.push(vec![figure]),
        }
    }
    groups
}

fn median(group: &[&Figure]) -> f64 {
    let mut values: Vec<f64> = group.iter().map(|figure| figure.value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn of_hand(figure: &Figure, value: f64, groups: &[Vec<&Figure>]) -> Option<f64> {
    let hand =
        groups.iter().find(|group| matches!(&*group[0].engine, "hand" | "raw") && group[0].compares_with(figure))?;
    let ratio = value / median(hand);
    ratio.is_finite().then_some(ratio)
}

/// Whole numbers in groups of three digits; small ones with as many places as mean something.
fn readable(value: f64) -> String {
    if value.abs() < 1000.0 {
        return format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::from(if value < 0.0 { "-" } else { "" });
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figure(engine: &str, rate: u64, value: f64) -> Figure {
        let conditions = json!({ "rate": rate, "min": value }).as_object().cloned().unwrap_or_default();
        Figure {
            bench: "latency-local".into(),
            engine: engine.into(),
            metric: "p50_us".into(),
            value,
            unit: "us".into(),
            conditions,
        }
    }

    #[test]
    fn a_ratio_is_that_of_medians_at_the_same_load() {
        let figures = [
            figure("millstream", 1000, 30.0),
            figure("hand", 1000, 10.0),
            figure("hand", 10_000, 1.0),
            figure("millstream", 1000, 20.0),
            figure("millstream", 1000, 900.0),
        ];
        let table = table(&figures);
        let ours = table.lines().find(|line| line.contains("millstream")).expect("it has a row");
        assert!(ours.contains(" 30 us") && ours.ends_with("3.00"), "{table}");
    }

    #[test]
    fn without_an_opponents_number_there_is_no_ratio() {
        let alone = table(&[figure("millstream", 1, 1.0)]);
        assert!(alone.trim_end().ends_with('-'), "{alone}");
        let beside_zero = table(&[figure("hand", 1, 0.0), figure("millstream", 1, 1.0)]);
        assert!(beside_zero.trim_end().ends_with('-'), "{beside_zero}");
    }

    #[test]
    fn numbers_are_grouped_from_the_right() {
        assert_eq!(readable(58_123_456.4), "58,123,456");
        assert_eq!(readable(1000.0), "1,000");
        assert_eq!(readable(0.27), "0.27");
        assert_eq!(readable(26.0), "26");
    }
}
