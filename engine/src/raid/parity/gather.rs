//! The new contents of a row that are written together, brought into shape: whole blocks where there are checksums, and
//! those near each other in one update.

use super::row::{ColumnSet, Stretch};
use super::write::New;
use crate::io::{IoBuf, IoError};
use crate::raid::checks::{is_blocks, round_to_blocks};
use crate::raid::group::Group;
use crate::types::ByteRange;

/// Contents that are further from each other are updates of their own: reading what lies between costs more than an
/// update does.
const GAP: u64 = 8 << 10;

impl Group {
    /// The same contents in whole blocks, with what stands around them. The caller holds the row; it was written before.
    pub(super) async fn in_whole_blocks(&self, row: u64, mut news: Vec<New>) -> Result<Vec<New>, IoError> {
        if news.iter().all(|new| is_blocks(new.range)) {
            return Ok(news);
        }
        news.sort_by_key(|new| (new.column, new.range.start()));
        let mut out: Vec<New> = Vec::new();
        for (column, range, parts) in of_one_block_each(news) {
            if let [only] = parts.as_slice()
                && only.range == range
            {
                out.extend(parts);
                continue;
            }
            let stretch = Stretch { row, range };
            let old = self
                .row_content(stretch, ColumnSet::one(column), ColumnSet::default())
                .await?;
            let mut whole = IoBuf::from_slice(old[0].as_slice());
            parts.iter().for_each(|part| part.put(stretch, &mut whole));
            let data = whole.into_slice();
            out.push(New { column, range, data });
        }
        Ok(out)
    }
}

/// Contents, sorted by column and address, whose blocks overlap, with these blocks.
fn of_one_block_each(news: Vec<New>) -> Vec<(usize, ByteRange, Vec<New>)> {
    let mut out: Vec<(usize, ByteRange, Vec<New>)> = Vec::new();
    for new in news {
        let blocks = round_to_blocks(new.range);
        match out.last_mut() {
            Some((column, range, parts)) if *column == new.column && blocks.start() < range.end() => {
                *range = ByteRange::between(range.start(), range.end().max(blocks.end()));
                parts.push(new);
            }
            _ => out.push((new.column, blocks, vec![new])),
        }
    }
    out
}

/// What is near each other by member address, each with the stretch that it lies in.
pub(super) fn clusters(mut news: Vec<New>) -> Vec<(ByteRange, Vec<New>)> {
    news.sort_by_key(|new| new.range.start());
    let mut out: Vec<(ByteRange, Vec<New>)> = Vec::new();
    for new in news {
        match out.last_mut() {
            Some((range, cluster)) if new.range.start() <= range.end() + GAP => {
                *range = ByteRange::between(range.start(), range.end().max(new.range.end()));
                cluster.push(new);
            }
            _ => out.push((new.range, vec![new])),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn news() -> impl Strategy<Value = Vec<New>> {
        let one = (0usize..3, 0u64..64, 1u64..32).prop_map(|(column, start, len)| New {
            column,
            range: ByteRange::between(start * 512, (start + len) * 512),
            data: IoBuf::zeroed(usize::try_from(len * 512).unwrap()).into_slice(),
        });
        proptest::collection::vec(one, 1..12)
    }

    proptest! {
        #[test]
        fn clusters_hold_everything_once_and_lie_apart(news in news()) {
            let count = news.len();
            let clusters = clusters(news);
            prop_assert_eq!(clusters.iter().map(|(_, news)| news.len()).sum::<usize>(), count);
            for (range, news) in &clusters {
                prop_assert!(news.iter().all(|new| range.covers(new.range)));
            }
            for pair in clusters.windows(2) {
                prop_assert!(pair[0].0.end() + GAP < pair[1].0.start());
            }
        }

        #[test]
        fn no_block_of_a_column_is_in_two_places(mut news in news()) {
            news.sort_by_key(|new| (new.column, new.range.start()));
            let count = news.len();
            let places = of_one_block_each(news);
            prop_assert_eq!(places.iter().map(|(_, _, news)| news.len()).sum::<usize>(), count);
            for (column, range, news) in &places {
                prop_assert!(is_blocks(*range));
                prop_assert!(news.iter().all(|new| new.column == *column && range.covers(new.range)));
            }
            for pair in places.windows(2) {
                prop_assert!(pair[0].0 < pair[1].0 || pair[0].1.end() <= pair[1].1.start());
            }
        }
    }
}
