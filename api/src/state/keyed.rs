//! The states that a keyed function holds, as Flink names them. Each belongs to the key of the current record.
//!
//! A function makes them in `open` with [`RuntimeContext`](crate::context::RuntimeContext) and reaches the current
//! key's value through its [`KeyedContext`].

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    rc::Rc,
};

use millstream_model::{
    fault::Failure,
    id::OperatorId,
    key_group::{KeyHash, MaxParallelism},
};

use super::{
    account::StateAccount,
    snapshot::{Section, SectionKind, Snapshot},
    table::{AnyTable, StateValue, Table},
};
use crate::{
    function::KeyedContext,
    record::{Key, Record},
};

/// The keyed states of one operator in one subtask.
pub struct KeyedStates {
    operator: OperatorId,
    max_parallelism: MaxParallelism,
    groups: Range<u16>,
    tables: Vec<Rc<RefCell<dyn AnyTable>>>,
    account: StateAccount,
    /// What the checkpoint holds for this operator; each state takes its own when it is made.
    restored: Vec<Section>,
}

impl KeyedStates {
    pub fn new(
        operator: OperatorId,
        max_parallelism: MaxParallelism,
        groups: Range<u16>,
        restored: Vec<Section>,
        account: StateAccount,
    ) -> Self {
        KeyedStates { operator, max_parallelism, groups, tables: Vec::new(), account, restored }
    }

    /// Makes the table of a state, with what the checkpoint holds for it.
    ///
    /// # Errors
    /// If another state has the name, or the checkpoint's content does not fit.
    pub fn table<K: Key, V: StateValue>(&mut self, name: &str) -> Result<Rc<RefCell<Table<K, V>>>, Failure> {
        if self.tables.iter().any(|table| table.borrow().name() == name) {
            return Err(Failure::fatal(format!("two states of one operator are called '{name}'")));
        }
        let mut table = Table::<K, V>::new(name, self.max_parallelism, self.groups.clone(), self.account.clone());
        let wanted = |section: &mut Section| matches!(section.kind, SectionKind::Keyed(_)) && section.name == name;
        for section in self.restored.extract_if(.., wanted) {
            table.restore(&section)?;
        }
        let table = Rc::new(RefCell::new(table));
        self.tables.push(table.clone());
        Ok(table)
    }

    /// Names of states that the checkpoint holds and nobody has asked for.
    pub fn unclaimed(&self) -> impl Iterator<Item = &str> {
        self.restored.iter().map(|section| section.name.as_str())
    }

    /// See [`Push::warm`](crate::push::Push::warm).
    pub(crate) fn can_warm(&self) -> bool {
        self.tables.iter().any(|table| table.borrow().can_warm())
    }

    /// See [`Push::warm`](crate::push::Push::warm).
    pub(crate) fn warm(&self, key_hashes: &[KeyHash]) {
        self.tables.iter().for_each(|table| table.borrow().warm(key_hashes));
    }

    pub fn snapshot(&self, snapshot: &mut Snapshot) {
        self.tables.iter().for_each(|table| table.borrow().snapshot(self.operator, snapshot));
    }
}

/// One value per key.
pub struct ValueState<K, V>(pub(crate) Rc<RefCell<Table<K, V>>>);

impl<K: Key, V: StateValue> ValueState<K, V> {
    /// Shows the key's value, if it has one.
    #[inline]
    pub fn with<R>(&self, context: &KeyedContext<'_, K>, show: impl FnOnce(Option<&V>) -> R) -> R {
        self.0.borrow().with(context.hash(), context.key(), show)
    }

    /// A copy of the key's value.
    #[inline]
    pub fn get(&self, context: &KeyedContext<'_, K>) -> Option<V>
    where
        V: Clone,
    {
        self.with(context, |value| value.cloned())
    }

    pub fn set(&self, context: &KeyedContext<'_, K>, value: V) {
        // Either `make` takes the value, or `show` finds it still there and assigns it.
        let value = Cell::new(Some(value));
        self.0.borrow_mut().upsert(
            context.hash(),
            context.key(),
            || value.take().expect("made before it is shown"),
            |place| value.take().into_iter().for_each(|value| *place = value),
        );
    }

    /// Changes the key's value, which starts as the default.
    #[inline]
    pub fn update<R>(&self, context: &KeyedContext<'_, K>, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        self.0.borrow_mut().upsert(context.hash(), context.key(), V::default, change)
    }

    /// Forgets the key's value.
    pub fn clear(&self, context: &KeyedContext<'_, K>) -> Option<V> {
        self.0.borrow_mut().remove(context.hash(), context.key())
    }
}

/// A list of values per key.
pub struct ListState<K, V: Record>(pub(crate) Rc<RefCell<Table<K, Vec<V>>>>);

impl<K: Key, V: Record> ListState<K, V> {
    pub fn add(&self, context: &KeyedContext<'_, K>, value: V) {
        self.0.borrow_mut().upsert(context.hash(), context.key(), Vec::new, |list| list.push(value));
    }

    /// Shows the key's values in the order in which they were added.
    pub fn with<R>(&self, context: &KeyedContext<'_, K>, show: impl FnOnce(&[V]) -> R) -> R {
        self.0.borrow().with(context.hash(), context.key(), |list| show(list.map_or(&[], |list| list)))
    }

    pub fn clear(&self, context: &KeyedContext<'_, K>) -> Vec<V> {
        self.0.borrow_mut().remove(context.hash(), context.key()).unwrap_or_default()
    }
}

/// A map per key.
pub struct MapState<K, M: Record, V: Record>(pub(crate) Rc<RefCell<Table<K, MapEntries<M, V>>>>);

/// The map of one key; stored as a list of pairs.
pub struct MapEntries<M, V> {
    map: HashMap<M, V>,
    /// What its entries hold on the heap.
    held: usize,
}

impl<M, V> Default for MapEntries<M, V> {
    fn default() -> Self {
        MapEntries { map: HashMap::new(), held: 0 }
    }
}

impl<M: Record + std::hash::Hash + Eq, V: Record> MapEntries<M, V> {
    fn put(&mut self, entry: M, value: V) -> Option<V> {
        self.held += value.heap_bytes();
        match self.map.entry(entry) {
            Entry::Occupied(mut place) => {
                let before = place.insert(value);
                self.held -= before.heap_bytes();
                Some(before)
            }
            Entry::Vacant(place) => {
                self.held += place.key().heap_bytes();
                place.insert(value);
                None
            }
        }
    }

    fn update<R>(&mut self, entry: M, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        let (value, before) = match self.map.entry(entry) {
            Entry::Occupied(place) => {
                let value = place.into_mut();
                let before = value.heap_bytes();
                (value, before)
            }
            Entry::Vacant(place) => {
                self.held += place.key().heap_bytes();
                (place.insert(V::default()), 0)
            }
        };
        let changed = change(value);
        self.held = self.held - before + value.heap_bytes();
        changed
    }

    fn remove(&mut self, entry: &M) -> Option<V> {
        let (entry, value) = self.map.remove_entry(entry)?;
        self.held -= entry.heap_bytes() + value.heap_bytes();
        Some(value)
    }
}

impl<M: Record + std::hash::Hash + Eq, V: Record> StateValue for MapEntries<M, V> {
    type Stored = Vec<(M, V)>;
    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        // The map has eighths of places to spare, and a byte for each.
        self.map.capacity() * (size_of::<(M, V)>() + 1) * 8 / 7 + self.held
    }

    fn stored(&self) -> Vec<(M, V)> {
        self.map.iter().map(|(key, value)| (M::own(key.handle()), V::own(value.handle()))).collect()
    }

    fn restored(stored: Vec<(M, V)>) -> Self {
        let mut entries = MapEntries::default();
        stored.into_iter().for_each(|(entry, value)| drop(entries.put(entry, value)));
        entries
    }
}

impl<K: Key, M: Record + std::hash::Hash + Eq, V: Record> MapState<K, M, V> {
    pub fn put(&self, context: &KeyedContext<'_, K>, entry: M, value: V) -> Option<V> {
        let mut table = self.0.borrow_mut();
        table.upsert(context.hash(), context.key(), MapEntries::default, |map| map.put(entry, value))
    }

    /// Shows the value of one entry, if it has one.
    pub fn with<R>(&self, context: &KeyedContext<'_, K>, entry: &M, show: impl FnOnce(Option<&V>) -> R) -> R {
        self.0.borrow().with(context.hash(), context.key(), |map| show(map.and_then(|map| map.map.get(entry))))
    }

    /// Changes the value of one entry, which starts as the default.
    pub fn update<R>(&self, context: &KeyedContext<'_, K>, entry: M, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        let mut table = self.0.borrow_mut();
        table.upsert(context.hash(), context.key(), MapEntries::default, |map| map.update(entry, change))
    }

    /// Shows every entry, in no order.
    pub fn for_each(&self, context: &KeyedContext<'_, K>, mut show: impl FnMut(&M, &V)) {
        self.0.borrow().with(context.hash(), context.key(), |map| {
            map.into_iter().flat_map(|map| &map.map).for_each(|(entry, value)| show(entry, value));
        });
    }

    pub fn remove(&self, context: &KeyedContext<'_, K>, entry: &M) -> Option<V> {
        let mut table = self.0.borrow_mut();
        table.change(context.hash(), context.key(), |map| map.and_then(|map| map.remove(entry)))
    }

    pub fn clear(&self, context: &KeyedContext<'_, K>) {
        self.0.borrow_mut().remove(context.hash(), context.key());
    }
}

/// One value per key into which every added one is folded.
pub struct ReducingState<K, V: Record> {
    pub(crate) table: Rc<RefCell<Table<K, V>>>,
    pub(crate) reduce: fn(&mut V, V::Ref<'_>),
}

impl<K: Key, V: Record> ReducingState<K, V> {
    pub fn add(&self, context: &KeyedContext<'_, K>, value: V::Ref<'_>) {
        let fresh = Cell::new(false);
        self.table.borrow_mut().upsert(
            context.hash(),
            context.key(),
            || {
                fresh.set(true);
                V::own(value)
            },
            |place| {
                if !fresh.get() {
                    (self.reduce)(place, value);
                }
            },
        );
    }

    pub fn with<R>(&self, context: &KeyedContext<'_, K>, show: impl FnOnce(Option<&V>) -> R) -> R {
        self.table.borrow().with(context.hash(), context.key(), show)
    }

    pub fn clear(&self, context: &KeyedContext<'_, K>) -> Option<V> {
        self.table.borrow_mut().remove(context.hash(), context.key())
    }
}
