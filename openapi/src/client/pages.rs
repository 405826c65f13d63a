//! Walking a list, page by page.

use futures_util::Stream;
use futures_util::stream::try_unfold;

use super::Client;
use super::call::{Answer, Call};
use super::error::ClientError;
use crate::operation::{Nothing, Operation};
use crate::values::Page;

impl Client {
    /// The pages of a list from `call`'s cursor on, each with as many items as `call` limits it to.
    pub fn pages<O, T>(&self, call: Call<O>) -> impl Stream<Item = Result<Answer<O>, ClientError>> + use<O, T>
    where
        O: Operation<Body = Nothing, Answer = Page<T>>,
        O::Query: Clone,
    {
        try_unfold((self.clone(), Some(call)), async |(client, call)| {
            let Some(call) = call else {
                return Ok(None);
            };
            let (path, query, mut common) = (call.path.clone(), call.query.clone(), call.common.clone());
            let answer = client.call(call).await?;
            common.cursor = answer.body.next_cursor.clone();
            let more = common.cursor.is_some();
            let next = more.then(|| Call::at(&path).query(query).common(common));
            Ok(Some((answer, (client, next))))
        })
    }
}
