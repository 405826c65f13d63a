//! Tables whose rows are found by more than one key, and names that are given once.
//!
//! Invariants ([`Table::invariant`], [`Names::invariant`]): whatever is found by one key is found by the others. A row
//! changes only through the table, so that no index can be left behind.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// What a table keeps.
pub trait Row {
    type Key: Ord + Copy;
    /// Another key, which no two rows have in common.
    type Other: Ord + Copy;

    fn key(&self) -> Self::Key;
    fn other(&self) -> Self::Other;
    /// The name, where a row carries one; no two rows of a table have the same.
    fn name(&self) -> Option<&str> {
        None
    }
}

/// Rows in the order of their keys. Every look-up costs O(log rows).
#[derive(Debug, Clone)]
pub struct Table<R: Row> {
    rows: BTreeMap<R::Key, R>,
    by_other: BTreeMap<R::Other, R::Key>,
    by_name: BTreeMap<String, R::Key>,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            by_other: BTreeMap::new(),
            by_name: BTreeMap::new(),
        }
    }
}

impl<R: Row> Table<R> {
    /// Puts a row in, in the place of the one with its key.
    pub fn insert(&mut self, row: R) {
        let key = row.key();
        self.remove(key);
        self.by_other.insert(row.other(), key);
        if let Some(name) = row.name() {
            self.by_name.insert(name.to_owned(), key);
        }
        self.rows.insert(key, row);
    }

    pub fn remove(&mut self, key: R::Key) -> Option<R> {
        let row = self.rows.remove(&key)?;
        // Rows that contradict each other may have an entry in common: it is the later one's.
        if self.by_other.get(&row.other()) == Some(&key) {
            self.by_other.remove(&row.other());
        }
        if let Some(name) = row.name()
            && self.by_name.get(name) == Some(&key)
        {
            self.by_name.remove(name);
        }
        Some(row)
    }

    /// Changes a row, where there is one.
    pub fn change(&mut self, key: R::Key, change: impl FnOnce(&mut R)) {
        if let Some(mut row) = self.remove(key) {
            change(&mut row);
            self.insert(row);
        }
    }

    pub fn get(&self, key: R::Key) -> Option<&R> {
        self.rows.get(&key)
    }

    /// The row with this other key.
    pub fn find(&self, other: R::Other) -> Option<&R> {
        self.get(*self.by_other.get(&other)?)
    }

    /// The rows whose other key lies in this range, in its order.
    pub fn find_all(&self, others: impl RangeBounds<R::Other>) -> impl Iterator<Item = &R> {
        self.by_other.range(others).filter_map(|(_, key)| self.get(*key))
    }

    pub fn named(&self, name: &str) -> Option<&R> {
        self.get(*self.by_name.get(name)?)
    }

    pub fn contains(&self, key: R::Key) -> bool {
        self.rows.contains_key(&key)
    }

    pub fn keys(&self) -> impl Iterator<Item = R::Key> {
        self.rows.keys().copied()
    }

    pub fn values(&self) -> impl Iterator<Item = &R> {
        self.rows.values()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether all indices agree with the rows. Always true of rows that have no key in common.
    pub fn invariant(&self) -> bool {
        let indexed = |row: &R| {
            let key = Some(row.key());
            self.by_other.get(&row.other()).copied() == key
                && row
                    .name()
                    .is_none_or(|name| self.by_name.get(name).copied() == key)
        };
        let names = self.values().filter(|row| row.name().is_some()).count();
        self.values().all(indexed) && self.by_other.len() == self.len() && self.by_name.len() == names
    }
}

/// Names of things, each given once.
#[derive(Debug, Clone)]
pub struct Names<K> {
    of: BTreeMap<K, String>,
    owners: BTreeMap<String, K>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Names<K> {
    /// Gives a name, or takes it away.
    pub fn set(&mut self, of: K, name: Option<String>) {
        if let Some(old) = self.of.remove(&of)
            && self.owners.get(&old) == Some(&of)
        {
            self.owners.remove(&old);
        }
        if let Some(name) = name {
            self.owners.insert(name.clone(), of);
            self.of.insert(of, name);
        }
    }

    pub fn get(&self, of: K) -> Option<&String> {
        self.of.get(&of)
    }

    /// What is called so.
    pub fn owner(&self, name: &str) -> Option<K> {
        self.owners.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, &String)> {
        self.of.iter().map(|(&of, name)| (of, name))
    }

    /// Whether both directions agree. Always true of names that were given once.
    pub fn invariant(&self) -> bool {
        let found = |(of, name): (K, &String)| self.owner(name) == Some(of);
        self.iter().all(found) && self.owners.len() == self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Person {
        number: u32,
        id: u32,
        name: String,
    }

    impl Row for Person {
        type Key = u32;
        type Other = u32;

        fn key(&self) -> u32 {
            self.number
        }

        fn other(&self) -> u32 {
            self.id
        }

        fn name(&self) -> Option<&str> {
            Some(&self.name)
        }
    }

    proptest! {
        #[test]
        fn what_is_found_by_one_key_is_found_by_the_others(
            steps in proptest::collection::vec((0u32..8, 0u32..8, 0u32..3), 0..60),
        ) {
            let mut table = Table::<Person>::default();
            let mut names = Names::default();
            for (number, value, kind) in steps {
                let name = format!("n{value}");
                let taken = table.find(value).is_some_and(|other| other.number != number)
                    || table.named(&name).is_some_and(|other| other.number != number);
                match kind {
                    0 => {
                        table.remove(number);
                        names.set(number, None);
                    }
                    _ if taken => continue,
                    1 => table.insert(Person { number, id: value, name: name.clone() }),
                    _ => table.change(number, |person| {
                        person.id = value;
                        person.name.clone_from(&name);
                    }),
                }
                if kind > 0 && table.contains(number) {
                    names.set(number, Some(name));
                }
                prop_assert!(table.invariant() && names.invariant());
                for person in table.values() {
                    prop_assert_eq!(table.find(person.id), Some(person));
                    prop_assert_eq!(table.named(&person.name), Some(person));
                    prop_assert_eq!(names.owner(&person.name), Some(person.number));
                }
                prop_assert_eq!(table.find_all(2..5).count(), table.values().filter(|p| (2..5).contains(&p.id)).count());
            }
        }
    }
}
