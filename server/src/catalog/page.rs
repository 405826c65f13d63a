//! Listings by pages: rows in a stable order, each page beginning after the last row of the one before.
//!
//! Queries here are put together at run time: order and direction cannot be parameters of a fixed one, and a fixed one
//! with every filter optional would keep Postgres from using its indexes. Only constants of this crate become SQL;
//! values are bound. Tests run every order.

use sqlx::postgres::PgRow;
use sqlx::{Encode, FromRow, PgConnection, Postgres, QueryBuilder, Type};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::CatalogError;
use super::error::is_malformed;

/// One page, and where the next one begins: `None` after the last row.
#[derive(Debug, Clone)]
pub struct Page<R> {
    pub rows: Vec<R>,
    pub next: Option<After>,
}

/// A place in a listing: after the row with this value of what is sorted by, and this id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    pub value: String,
    pub id: Uuid,
}

/// What a table's listing can be sorted by.
pub trait SortBy: Copy {
    type Row: for<'r> FromRow<'r, PgRow> + Send + Unpin;

    /// The expression, and its type.
    fn sql(self) -> (&'static str, &'static str);

    fn place_of(self, row: &Self::Row) -> After;
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone)]
pub struct Part<S> {
    pub sort: S,
    pub descending: bool,
    /// None: from the start.
    pub after: Option<After>,
    /// Rows.
    pub limit: u32,
}

/// A listing of a table, while its filters are added.
pub(super) struct Listing {
    query: QueryBuilder<Postgres>,
}

impl Listing {
    pub(super) fn of(table: &'static str) -> Self {
        Self {
            query: QueryBuilder::new(format!("select * from {table} where true")),
        }
    }

    /// Only rows that have this value there, where one is given.
    pub(super) fn with<'t, T>(mut self, column: &'static str, value: Option<T>) -> Self
    where
        T: 't + Encode<'t, Postgres> + Type<Postgres>,
    {
        if let Some(value) = value {
            self.query.push(format_args!(" and {column} = ")).push_bind(value);
        }
        self
    }

    pub(super) async fn part<S: SortBy>(
        mut self,
        conn: &mut PgConnection,
        part: &Part<S>,
    ) -> Result<Page<S::Row>, CatalogError> {
        let (key, kind) = part.sort.sql();
        let (beyond, direction) = match part.descending {
            true => ('<', "desc"),
            false => ('>', "asc"),
        };
        if let Some(after) = &part.after {
            self.query
                .push(format_args!(" and ({key}, id) {beyond} ("))
                .push_bind(after.value.clone())
                .push(format_args!("::text::{kind}, "))
                .push_bind(after.id)
                .push(")");
        }
        let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
        self.query
            .push(format_args!(" order by {key} {direction}, id {direction} limit "))
            .push_bind(i64::from(part.limit).saturating_add(1));
        let fetched = self.query.build_query_as().fetch_all(conn).await;
        let mut rows: Vec<S::Row> =
            fetched.map_err(|error| match part.after.is_some() && is_malformed(&error) {
                true => CatalogError::Cursor,
                false => error.into(),
            })?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| part.sort.place_of(row));
        Ok(Page { rows, next })
    }
}

/// A time as Postgres reads it back to the microsecond.
pub(super) fn time_text(at: OffsetDateTime) -> String {
    at.format(&Rfc3339)
        .expect("times of the catalog have years of four digits")
}
