//! Sessions on the simulated source: they write records side by side, take locks as PostgreSQL does,
//! and commit in an order of their own.

use std::collections::HashSet;

use crate::rng::Rng;
use crate::tables::{
    ACCOUNTS, BLOBS, EVENTS, ITEMS, OTHER, Row, SAVINGS, TOAST_CHARS, Table, tables,
};
use crate::tape::{Change, Op, Rows, Txn};

/// Rows of a table beyond which no more are inserted, bulk loads aside.
const ROWS_MAX: usize = 120;
/// Accounts at the beginning, in each of the two tables.
const ACCOUNTS_FIRST: u64 = 12;

/// The database.
pub(crate) struct Database {
    pub(crate) tables: Vec<Table>,
    /// What is committed.
    pub(crate) rows: Rows,
    /// All transactions, in commit order.
    pub(crate) tape: Vec<Txn>,
    /// Where the next record goes.
    pub(crate) insert_at: u64,
    rng: Rng,
    sessions: Vec<Session>,
    next_xid: u32,
    next_id: u64,
    /// Rows of a bulk load.
    bulk_rows: u64,
}

/// An open transaction.
struct Session {
    xid: u32,
    changes: Vec<Change>,
    /// Keys of rows that it has changed or inserted.
    locks: HashSet<(usize, Row)>,
    /// Tables it has touched, and those it has emptied.
    touched: HashSet<usize>,
    emptied: HashSet<usize>,
    /// Rows as it sees them.
    view: Rows,
    steps_left: u64,
}

impl Database {
    /// A database with first rows, all below `start`.
    pub(crate) fn new(mut rng: Rng, start: u64, bulk_rows: u64) -> Database {
        let tables = tables();
        let mut rows = Rows::new(tables.len());
        for id in 0..ACCOUNTS_FIRST {
            let memo = Some(text(&mut rng));
            rows.add(ACCOUNTS, vec![number(id), number(1000), memo]);
            rows.add(SAVINGS, vec![number(id), number(500), None]);
        }
        for id in 0..5 {
            let row = vec![number(id), Some(format!("c{id}")), number(1), Some(text(&mut rng))];
            rows.add(ITEMS, row);
            rows.add(EVENTS, vec![number(id % 2), Some("first".to_owned())]);
        }
        Database {
            tables,
            rows,
            tape: Vec::new(),
            insert_at: start,
            rng,
            sessions: Vec::new(),
            next_xid: 700,
            next_id: 1000,
            bulk_rows,
        }
    }

    /// Rolls open transactions back: the server went down.
    pub(crate) fn crash(&mut self) {
        self.sessions.clear();
    }

    /// One step of one session: a record, a commit or a rollback.
    pub(crate) fn step(&mut self, micros: i64) {
        if self.sessions.is_empty() || (self.sessions.len() < 4 && self.rng.percent(40)) {
            self.begin();
        }
        let at = self.rng.index(self.sessions.len());
        if self.sessions[at].steps_left == 0 {
            let session = self.sessions.swap_remove(at);
            if self.rng.percent(93) {
                self.commit(session, micros);
            }
            return;
        }
        self.sessions[at].steps_left -= 1;
        self.write(at);
    }

    fn begin(&mut self) {
        let steps_left = match self.rng.below(100) {
            0..4 => 0,
            4..60 => self.rng.between(1, 2),
            60..97 => self.rng.between(3, 8),
            _ => self.rng.between(20, 60),
        };
        self.sessions.push(Session {
            xid: self.next_xid,
            changes: Vec::new(),
            locks: HashSet::new(),
            touched: HashSet::new(),
            emptied: HashSet::new(),
            view: self.rows.clone(),
            steps_left,
        });
        self.next_xid += 1;
    }

    /// Moves on in the log by a record; sometimes records of other databases lie between.
    fn record(&mut self) -> u64 {
        if self.rng.percent(10) {
            self.insert_at += 8 * self.rng.between(1, 400);
        }
        let at = self.insert_at;
        self.insert_at += 8 * self.rng.between(4, 30);
        at
    }

    fn commit(&mut self, session: Session, micros: i64) {
        let commit_lsn = self.record();
        let (xid, end_lsn) = (session.xid, self.insert_at);
        let txn = Txn { xid, commit_lsn, end_lsn, micros, changes: session.changes };
        self.rows.apply(&txn);
        // what others see from now on; their own changes are on other rows
        for other in &mut self.sessions {
            other.view.apply(&txn);
        }
        self.tape.push(txn);
    }

    fn write(&mut self, at: usize) {
        match self.rng.below(100) {
            0..45 => self.transfer(at),
            45..60 => self.change_item(at),
            60..75 => self.change_event(at),
            75..90 => self.change_blob(at),
            90..93 => self.change_other(at),
            93..97 => self.move_account(at),
            97..99 => self.truncate(at),
            _ => self.bulk(at),
        }
    }

    /// Whether a session may change a row: nobody else has, and no other has emptied the table.
    fn lock(&mut self, at: usize, table: usize, key: Row) -> bool {
        let is_free = self.sessions.iter().enumerate().all(|(other, session)| {
            other == at
                || !(session.locks.contains(&(table, key.clone()))
                    || session.emptied.contains(&table))
        });
        if is_free {
            self.sessions[at].locks.insert((table, key));
            self.sessions[at].touched.insert(table);
        }
        is_free
    }

    fn lock_of(&self, table: usize, row: &Row) -> Row {
        let table = &self.tables[table];
        if table.key.is_empty() { row.clone() } else { table.key_only(row) }
    }

    fn push(&mut self, at: usize, op: Op) {
        let lsn = self.record();
        self.push_at(at, lsn, op);
    }

    fn push_at(&mut self, at: usize, lsn: u64, op: Op) {
        let session = &mut self.sessions[at];
        let txn =
            Txn { xid: 0, commit_lsn: 0, end_lsn: 0, micros: 0, changes: vec![Change { lsn, op }] };
        session.view.apply(&txn);
        session.changes.extend(txn.changes);
    }

    fn pick(&mut self, at: usize, table: usize) -> Option<Row> {
        let rows = &self.sessions[at].view.0[table];
        let which = self.rng.index(rows.len().max(1));
        rows.keys().nth(which).cloned()
    }

    fn update(&mut self, at: usize, table: usize, old: Row, new: Row) -> bool {
        let (old_lock, new_lock) = (self.lock_of(table, &old), self.lock_of(table, &new));
        let taken = !self.tables[table].key.is_empty()
            && old_lock != new_lock
            && self.sessions[at].view.0[table]
                .keys()
                .any(|row| self.tables[table].same_key(row, &new));
        if taken || !self.lock(at, table, old_lock) || !self.lock(at, table, new_lock) {
            return false;
        }
        self.push(at, Op::Update { table, old, new });
        true
    }

    fn insert(&mut self, at: usize, table: usize, row: Row) {
        let lock = self.lock_of(table, &row);
        let is_taken = !self.tables[table].key.is_empty()
            && self.sessions[at].view.0[table]
                .keys()
                .any(|found| self.tables[table].same_key(found, &row));
        if !is_taken && self.lock(at, table, lock) {
            self.push(at, Op::Insert { table, row });
        }
    }

    fn delete(&mut self, at: usize, table: usize, old: Row) {
        let lock = self.lock_of(table, &old);
        if self.lock(at, table, lock) {
            self.push(at, Op::Delete { table, old });
        }
    }

    /// Moves money from one table to the other: the sum over both never changes.
    fn transfer(&mut self, at: usize) {
        let (Some(from), Some(to)) = (self.pick(at, ACCOUNTS), self.pick(at, SAVINGS)) else {
            return;
        };
        let locks = (self.lock_of(ACCOUNTS, &from), self.lock_of(SAVINGS, &to));
        if !(self.lock(at, ACCOUNTS, locks.0) && self.lock(at, SAVINGS, locks.1)) {
            return;
        }
        let amount = i64::try_from(self.rng.below(200)).unwrap_or(0) - 100;
        let (mut less, mut more) = (from.clone(), to.clone());
        less[1] = plus(&from[1], -amount);
        more[1] = plus(&to[1], amount);
        if self.rng.percent(15) {
            more[2] = Some(text(&mut self.rng));
        }
        self.push(at, Op::Update { table: ACCOUNTS, old: from, new: less });
        self.push(at, Op::Update { table: SAVINGS, old: to, new: more });
    }

    /// Gives an account another number: a change of the key that leaves a long memo unsent.
    fn move_account(&mut self, at: usize) {
        let table = if self.rng.percent(50) { ACCOUNTS } else { SAVINGS };
        let Some(old) = self.pick(at, table) else { return };
        let mut new = old.clone();
        new[0] = number(self.fresh_id());
        self.update(at, table, old, new);
    }

    fn change_item(&mut self, at: usize) {
        let full = self.sessions[at].view.0[ITEMS].len() >= ROWS_MAX;
        match (self.rng.below(10), self.pick(at, ITEMS)) {
            (0..4, _) | (_, None) if !full => {
                let id = self.fresh_id();
                let note = self.rng.percent(70).then(|| text(&mut self.rng));
                self.insert(
                    at,
                    ITEMS,
                    vec![number(id), Some(format!("c{id}")), number(id % 7), note],
                );
            }
            (4..7, Some(old)) => {
                let mut new = old.clone();
                new[2] = number(self.rng.below(1000));
                self.update(at, ITEMS, old, new);
            }
            (7, Some(old)) => {
                let mut new = old.clone();
                new[1] = Some(format!("c{}", self.fresh_id()));
                self.update(at, ITEMS, old, new);
            }
            (_, Some(old)) => self.delete(at, ITEMS, old),
            (_, None) => {}
        }
    }

    /// Equal rows are common here, and only one of them goes with a delete.
    fn change_event(&mut self, at: usize) {
        let full = self.sessions[at].view.0[EVENTS].len() >= ROWS_MAX;
        match (self.rng.below(10), self.pick(at, EVENTS)) {
            (0..5, _) | (_, None) if !full => {
                let row = vec![number(self.rng.below(3)), Some(self.event_body())];
                self.insert(at, EVENTS, row);
            }
            (5..8, Some(old)) => {
                let mut new = old.clone();
                new[0] = number(self.rng.below(3));
                self.update(at, EVENTS, old, new);
            }
            (_, Some(old)) => self.delete(at, EVENTS, old),
            (_, None) => {}
        }
    }

    fn event_body(&mut self) -> String {
        if self.rng.percent(60) { format!("b{}", self.rng.below(4)) } else { text(&mut self.rng) }
    }

    fn change_blob(&mut self, at: usize) {
        let full = self.sessions[at].view.0[BLOBS].len() >= ROWS_MAX;
        match (self.rng.below(10), self.pick(at, BLOBS)) {
            (0..4, _) | (_, None) if !full => {
                let key = (number(self.rng.below(6)), Some(format!("k{}", self.rng.below(40))));
                let payload = Some(text(&mut self.rng).repeat(3));
                self.insert(at, BLOBS, vec![key.0, key.1, payload]);
            }
            (4..6, Some(old)) => {
                let mut new = old.clone();
                new[2] = self.rng.percent(80).then(|| text(&mut self.rng).repeat(2));
                self.update(at, BLOBS, old, new);
            }
            (6..8, Some(old)) => {
                let mut new = old.clone();
                new[1] = Some(format!("k{}", self.rng.below(60)));
                self.update(at, BLOBS, old, new);
            }
            (_, Some(old)) => self.delete(at, BLOBS, old),
            (_, None) => {}
        }
    }

    fn change_other(&mut self, at: usize) {
        let id = self.fresh_id();
        self.insert(at, OTHER, vec![number(id)]);
    }

    /// Empties tables that nobody else has touched, the bank excepted.
    fn truncate(&mut self, at: usize) {
        let mut emptied = vec![[EVENTS, BLOBS, ITEMS][self.rng.index(3)]];
        if self.rng.percent(30) {
            emptied = vec![EVENTS, BLOBS];
        }
        let is_free = self.sessions.iter().enumerate().all(|(other, session)| {
            other == at || emptied.iter().all(|table| !session.touched.contains(table))
        });
        if is_free {
            let session = &mut self.sessions[at];
            session.emptied.extend(emptied.iter().copied());
            session.touched.extend(emptied.iter().copied());
            self.push(at, Op::Truncate { tables: emptied });
        }
    }

    /// A load of many rows with one position, as COPY writes them.
    fn bulk(&mut self, at: usize) {
        let is_closed = self
            .sessions
            .iter()
            .enumerate()
            .any(|(other, session)| other != at && session.emptied.contains(&EVENTS));
        if is_closed || self.bulk_rows == 0 {
            return;
        }
        self.sessions[at].touched.insert(EVENTS);
        let lsn = self.record();
        for row in 0..self.rng.between(1, self.bulk_rows) {
            let row = vec![number(row % 5), Some(format!("load {}", row % 11))];
            self.push_at(at, lsn, Op::Insert { table: EVENTS, row });
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn number(value: u64) -> Option<String> {
    Some(value.to_string())
}

fn plus(value: &Option<String>, amount: i64) -> Option<String> {
    let value: i64 = value.as_deref().and_then(|text| text.parse().ok())?;
    Some((value + amount).to_string())
}

/// A text, in a third of the cases long enough to be stored out of line.
fn text(rng: &mut Rng) -> String {
    let length = if rng.percent(33) { TOAST_CHARS + rng.index(60) } else { 1 + rng.index(12) };
    (0..length).map(|_| char::from(b'a' + u8::try_from(rng.below(26)).unwrap_or(0))).collect()
}
