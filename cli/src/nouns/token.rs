//! `ashlar token`

use ashlar_openapi::access::Scope;
use ashlar_openapi::accounts::{NewToken, Token, TokenFilter};
use ashlar_openapi::client::Call;
use ashlar_openapi::operations::{CreateToken, GetToken, ListTokens, RevokeToken};
use ashlar_openapi::sort::NamedKey;
use ashlar_openapi::{Name, Timestamp};
use clap::Subcommand;

use super::user::Users;
use super::{Gone, One, end, show};
use crate::Context;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, find_some};
use crate::format;
use crate::list::{Length, Names, Order, Row, list};
use crate::values::moment;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token for oneself; its secret is told once
    Create {
        /// What to call it
        name: Name,
        /// What it may be used for, like `volumes:read`; may be repeated
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        /// Good until then, like 90d or 2026-12-31T00:00:00Z [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires: Option<Timestamp>,
    },
    /// List tokens: one's own, for admins everybody's
    List {
        /// Only of this user
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        order: Order<NamedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a token
    Show(One),
    /// Revoke a token
    Revoke(Gone),
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Create { name, scope, expires } => {
                let new = NewToken {
                    id: None,
                    name,
                    scopes: scope,
                    expires_at: expires,
                };
                let answer = cx.client.call(Call::<CreateToken>::with(&[], new)).await?;
                cx.out
                    .made(&answer.text, "token", &answer.body.token.id.to_string())
            }
            Self::List { user, order, length } => {
                let user = find_some::<Users>(&cx.client, user.as_deref()).await?;
                list(
                    cx,
                    Call::<ListTokens>::at(&[]).query(TokenFilter {
                        user,
                        name: None,
                        sort: order.sort,
                    }),
                    &length,
                )
                .await
            }
            Self::Show(named) => {
                let id = find::<Tokens>(&cx.client, &named.object).await?;
                show::<GetToken>(cx, &[id], id).await
            }
            Self::Revoke(gone) => {
                let id = find::<Tokens>(&cx.client, &gone.object).await?;
                gone.confirm("Revoke the token")?;
                end::<RevokeToken>(cx, id, "revoked").await
            }
        }
    }
}

/// Tokens, to be found.
struct Tokens;

impl Noun for Tokens {
    const WHAT: &'static str = "token";
    type Item = Token;
    type List = ListTokens;

    fn queries(text: &str) -> Vec<TokenFilter> {
        vec![TokenFilter {
            name: Some(text.to_owned()),
            ..TokenFilter::default()
        }]
    }

    fn handle(item: &Token) -> Handle {
        Handle {
            id: item.id,
            name: Some(item.name.to_string()),
            number: None,
        }
    }
}

impl Row for Token {
    const HEADERS: &'static [&'static str] = &["NAME", "SCOPES", "EXPIRES", "LAST USED", "USER"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        let scopes: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        vec![
            self.name.to_string(),
            scopes.join(","),
            format::or_nothing(self.expires_at.map(format::moment)),
            format::or_nothing(self.last_used_at.map(format::moment)),
            self.user.to_string(),
        ]
    }
}
