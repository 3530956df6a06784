//! One measured number as the programs print it.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// A line of a program, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub bench: String,
    pub engine: String,
    pub metric: String,
    pub value: f64,
    pub unit: String,
    pub conditions: Map<String, Value>,
}

/// The conditions that make two figures different questions. The others (sizes granted, checksums,
/// the machine) are answers or the same for all lines.
const QUESTIONS: [&str; 10] = [
    "rate",
    "transport",
    "channels",
    "path",
    "lanes",
    "processes",
    "fields",
    "checkpoint_interval_ms",
    "parallelism",
    "variant",
];

/// # Errors
/// If the line is not a JSON object with all six fields.
pub fn parse(line: &str) -> Result<Figure> {
    let object: Value = serde_json::from_str(line).context("not JSON")?;
    let text = |name: &str| {
        let text = object[name].as_str().with_context(|| format!("no text {name:?}"))?;
        Ok::<_, anyhow::Error>(text.to_owned())
    };
    Ok(Figure {
        bench: text("bench")?,
        engine: text("engine")?,
        metric: text("metric")?,
        value: object["value"].as_f64().context("no number \"value\"")?,
        unit: text("unit")?,
        conditions: object["conditions"].as_object().context("no object \"conditions\"")?.clone(),
    })
}

impl Figure {
    /// The conditions that were asked for, for people: `rate=1000 transport=memory`.
    pub fn question(&self) -> String {
        let asked = QUESTIONS.iter().filter_map(|name| {
            let value = self.conditions.get(*name).filter(|value| !value.is_null())?;
            Some(match value {
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
        });
        asked.collect::<Vec<_>>().join(" ")
    }

    /// Whether `other` answers the same question at the same load, by whatever means; but over the same transport,
    /// where processes speak with each other.
    pub fn compares_with(&self, other: &Figure) -> bool {
        self.bench == other.bench
            && self.metric == other.metric
            && self.conditions.get("rate") == other.conditions.get("rate")
            && self.wire() == other.wire()
    }

    /// The transport between processes, with or without encryption.
    fn wire(&self) -> Option<&str> {
        let transport = self.conditions.get("transport")?.as_str()?;
        let name = transport.split('+').next()?;
        (name == "quic" || name == "tcp").then_some(name)
    }

    /// Whether the program says that others used the machine meanwhile.
    pub fn is_disturbed(&self) -> bool {
        self.conditions.get("valid") == Some(&Value::Bool(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"bench":"latency-local","engine":"hand","metric":"p50_us","value":26,
        "unit":"us","conditions":{"rate":1000,"transport":"memory","sum":7,"valid":false}}"#;

    #[test]
    fn a_question_is_what_was_asked_and_not_what_came_of_it() {
        let figure = parse(LINE).expect("a sound line");
        assert_eq!(figure.question(), "rate=1000 transport=memory");
        assert!(figure.is_disturbed());
    }

    #[test]
    fn a_line_that_lacks_a_field_is_refused_by_its_name() {
        let error = parse(&LINE.replace("\"value\":26", "\"value\":\"26\"")).expect_err("no number");
        assert!(error.to_string().contains("value"), "{error}");
        assert!(parse("records: 5").is_err());
    }

    #[test]
    fn figures_of_different_rates_are_not_compared() {
        let slow = parse(LINE).expect("a sound line");
        let fast = parse(&LINE.replace("1000", "10000")).expect("a sound line");
        assert!(slow.compares_with(&slow.clone()) && !slow.compares_with(&fast));
    }
}
