//! All numbers of a process at one moment, by name.

use std::{collections::BTreeMap, sync::Arc};

/// What a number is of, as name and value, in the order in which it is shown. Flink's scope variables.
pub(super) type Labels = Arc<Vec<(&'static str, String)>>;

/// `labels` and more of them.
pub(super) fn and<const N: usize>(labels: &Labels, more: [(&'static str, String); N]) -> Labels {
    Arc::new(labels.iter().cloned().chain(more).collect())
}

/// Knows the numbers of a process.
pub(crate) trait Collect: Send + Sync + 'static {
    /// Adds them as they are now. Does not wait.
    fn collect(&self, scrape: &mut Scrape);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It only grows, but for starting again from 0.
    Counter,
    Gauge,
}

/// The numbers of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    /// What the names of a family begin with that are of the same kind of thing: Flink's logical scope.
    pub(super) scope: String,
    /// The name within it.
    pub(super) name: String,
    pub(super) points: Vec<(Labels, f64)>,
}

/// The numbers of one moment.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    /// By scope and name, with dots.
    pub(super) families: BTreeMap<String, Family>,
}

/// Where numbers of one thing go.
pub(super) struct Scope<'a> {
    scrape: &'a mut Scrape,
    scope: &'static str,
    labels: Labels,
}

impl Scrape {
    /// The scope, with dots, of what these labels are of.
    pub(super) fn scope(&mut self, scope: &'static str, labels: &Labels) -> Scope<'_> {
        Scope { scrape: self, scope, labels: labels.clone() }
    }
}

impl Scope<'_> {
    pub(super) fn counter(&mut self, name: &str, value: f64) -> &mut Self {
        self.add(Kind::Counter, name, value)
    }

    pub(super) fn gauge(&mut self, name: &str, value: f64) -> &mut Self {
        self.add(Kind::Gauge, name, value)
    }

    fn add(&mut self, kind: Kind, name: &str, value: f64) -> &mut Self {
        let family = self.scrape.families.entry(format!("{}.{name}", self.scope)).or_insert_with(|| Family {
            kind,
            scope: self.scope.to_owned(),
            name: name.to_owned(),
            points: Vec::new(),
        });
        // Functions may use one name for two kinds; then it is what is true of both.
        if family.kind != kind {
            family.kind = Kind::Gauge;
        }
        family.points.push((self.labels.clone(), value));
        self
    }
}
