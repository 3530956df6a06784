//! Figures as `cargo xtask bench` reads them: one JSON object a line, with the conditions that they hold under.

use serde_json::{Map, Value, json};

use crate::machine::{self, OTHER_LOAD_MAX, OtherLoad};

/// One run under way.
pub struct Run {
    bench: &'static str,
    engine: &'static str,
    load: OtherLoad,
    conditions: Map<String, Value>,
}

impl Run {
    /// Starts watching the machine. `conditions` is a JSON object.
    pub fn start(bench: &'static str, conditions: Value) -> Run {
        Run::of(bench, "millstream", conditions)
    }

    /// The same of another engine.
    pub fn of(bench: &'static str, engine: &'static str, conditions: Value) -> Run {
        let mut run = Run { bench, engine, load: OtherLoad::watch(), conditions: Map::new() };
        run.add(conditions);
        run
    }

    /// Adds facts to the conditions, as a JSON object.
    pub fn add(&mut self, facts: Value) {
        match facts {
            Value::Object(facts) => self.conditions.extend(facts),
            other => unreachable!("conditions are objects, not {other}"),
        }
    }

    /// Prints the figures: metric, value, unit.
    pub fn report(mut self, figures: &[(&str, f64, &str)]) {
        let other_load = self.load.processors();
        self.add(json!({
            "machine": machine::description(),
            "processors": machine::processors(),
            "debug_build": cfg!(debug_assertions),
            "other_load_processors": other_load.map(rounded),
            "valid": other_load.map(|load| load <= OTHER_LOAD_MAX && !cfg!(debug_assertions)),
        }));
        for (metric, value, unit) in figures {
            let line = json!({
                "bench": self.bench, "engine": self.engine, "metric": metric, "value": rounded(*value), "unit": unit,
                "conditions": self.conditions,
            });
            println!("{line}");
        }
    }
}

/// To five significant digits: more would be noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}
