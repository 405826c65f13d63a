//! Signatures of deliveries, as `openapi/src/webhooks.rs` tells receivers: HMAC-SHA-256 of the timestamp, a dot and the
//! body, under the secret's text.

use ring::hmac;

use crate::auth::secrets::hex;

/// What stands in `Ashlar-Signature`: one signature per secret, in their order.
pub fn signatures<'a>(secrets: impl IntoIterator<Item = &'a str>, timestamp: i64, body: &[u8]) -> String {
    let one = |secret: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{timestamp}.").as_bytes());
        context.update(body);
        format!("v1={}", hex(context.sign().as_ref()))
    };
    secrets.into_iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_receivers_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let secret = "v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        let other = "v1=2cb38bd50b3aa61b12df512da616c9577f2a99edb9467110d361a655e1ad3bd5";
        assert_eq!(signatures(["secret"], 1_700_000_000, br#"{"a":1}"#), secret);
        let both = format!("{secret},{other}");
        assert_eq!(
            signatures(["secret", "other"], 1_700_000_000, br#"{"a":1}"#),
            both
        );
    }
}
