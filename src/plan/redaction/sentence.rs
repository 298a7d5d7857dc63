//! Sentences that leave the node: statuses, events and logs. What other programs say may hold anything, so the forms
//! that secrets have are hidden in all of it.

use serde::Serialize;
use serde_json::Value;

use super::{HIDDEN, is_public, public};

/// Ends of names whose values are secret, in lower case and without the signs between words.
const SECRET_NAMES: [&str; 16] = [
    "accesskey",
    "apikey",
    "auth",
    "authorization",
    "clientcertificatedata",
    "clientkeydata",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "secretkey",
    "token",
];

/// Words before which and after which a secret stands.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Fewest characters of a word that is taken for a key or a token by its look.
const KEY_LENGTH: usize = 24;
/// How many passes a text gets to settle in before it is hidden as a whole; two are enough for all that was ever seen.
const PASSES: usize = 8;

/// A JSON document that may leave the node: every text in it is a [`sentence`]. There is no other way to make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Published(Value);

impl Published {
    /// The document as anybody may read it.
    pub fn of(mut document: Value) -> Self {
        redact(&mut document);
        Self(document)
    }
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = sentence(text),
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Object(map) => map.iter_mut().for_each(|(name, value)| match value {
            Value::String(text) if is_secret_name(name) => HIDDEN.clone_into(text),
            value => redact(value),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A sentence as anybody may read it: every URL, and whatever else may begin with a user and a password, is
/// [`public`]; PEM blocks, tokens, the values of names such as `password`, and what looks like a key are hidden.
///
/// What one pass leaves may name a secret only now (of `token?http://…` the word `token` is left), so passes are repeated
/// until one changes nothing.
pub fn sentence(text: &str) -> String {
    let mut shown = pass(text);
    for _ in 0..PASSES {
        let again = pass(&shown);
        if again == shown {
            return shown;
        }
        shown = again;
    }
    HIDDEN.to_owned()
}

fn pass(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        shown += &words(&rest[..begin]);
        shown += HIDDEN;
        let block = &rest[begin..];
        let end = block.find("-----END ").and_then(|end| {
            let label = end + "-----END ".len();
            Some(label + block[label..].find("-----")? + "-----".len())
        });
        // A block that was cut off has no end.
        rest = end.map_or("", |end| &block[end..]);
    }
    shown + &words(rest)
}

/// What ends a word.
fn outside(c: char) -> bool {
    c.is_whitespace() || "\"'`()<>,{}".contains(c)
}

fn words(text: &str) -> String {
    // The word before was the name of a secret; the next word is one.
    let (mut after_name, mut hide) = (false, false);
    text.split_inclusive(outside)
        .map(|piece| {
            let word = piece.trim_end_matches(|c| outside(c) || ".;".contains(c));
            match word {
                // Blanks and quotes between a name, its sign and its value.
                "" => return piece.to_owned(),
                "=" | ":" => {
                    hide |= std::mem::take(&mut after_name);
                    return piece.to_owned();
                }
                _ => {}
            }
            after_name = is_secret_name(word);
            let hidden = std::mem::take(&mut hide);
            let shown = match assignment(word) {
                // `Authorization: Bearer …`
                _ if SCHEMES.contains(&&*word.to_ascii_lowercase()) => {
                    hide = true;
                    word.to_owned()
                }
                _ if hidden => HIDDEN.to_owned(),
                Some((name, "")) if is_secret_name(name) => {
                    hide = true;
                    word.to_owned()
                }
                Some((name, value)) if is_secret_name(name) => {
                    format!("{}{HIDDEN}", &word[..word.len() - value.len()])
                }
                _ if word.contains("://") || !is_public(word) => {
                    let bare = word.trim_end_matches(':');
                    without_keys(&public(bare)) + &word[bare.len()..]
                }
                _ => {
                    hide = word.starts_with("--") && after_name;
                    without_keys(word)
                }
            };
            shown + &piece[word.len()..]
        })
        .collect()
}

/// `name=value` or `name:value`; the value may stand in the next word.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let at = word.find(['=', ':'])?;
    Some((&word[..at], &word[at + 1..]))
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// The word with everything hidden in it that looks like a key: a JSON web token, a bootstrap token, or a long run in
/// base64.
fn without_keys(word: &str) -> String {
    if is_web_token(word) || is_bootstrap_token(word) {
        return HIDDEN.to_owned();
    }
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let mut shown = String::with_capacity(word.len());
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !of_base64(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown += if is_key(run) { HIDDEN } else { run };
        let sign = after.chars().next().map_or(0, char::len_utf8);
        shown += &after[..sign];
        rest = &after[sign..];
    }
    shown
}

/// `eyJ…`: the base64 of `{"`.
fn is_web_token(word: &str) -> bool {
    word.contains("eyJ") && word.matches('.').count() >= 1 && word.len() >= KEY_LENGTH
}

/// kubeadm's `abcdef.0123456789abcdef`.
fn is_bootstrap_token(word: &str) -> bool {
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let (id, secret) = word.split_once('.').unwrap_or_default();
    id.len() == 6
        && secret.len() == 16
        && plain(id)
        && plain(secret)
        && word.contains(|c: char| c.is_ascii_digit())
}

/// Base64, and no name, digest or path: those have no capitals and digits among small letters, or a slash more often.
fn is_key(run: &str) -> bool {
    let any = |wanted: fn(&u8) -> bool| run.as_bytes().iter().any(wanted);
    let part = run.len() / (run.matches('/').count() + 1);
    part >= KEY_LENGTH
        && any(u8::is_ascii_uppercase)
        && any(u8::is_ascii_lowercase)
        && any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::urls(
        "fetch https://h/a?sig=x: proxy \"me:pw@p:3128\" (ftp://u@h) says no",
        "fetch https://h/a: proxy \"…@p:3128\" (ftp://…@h) says no"
    )]
    #[case::header("Authorization: Bearer abcdefgh, then", "Authorization: Bearer …, then")]
    #[case::basic("sent Basic bWU6cHc= to it", "sent Basic … to it")]
    #[case::yaml("line 3: token: zq7 here", "line 3: token: … here")]
    #[case::json(
        "{\"password\": \"zq7\", \"user\":\"me\"}",
        "{\"password\": \"…\", \"user\":\"me\"}"
    )]
    #[case::flag("kubelet --bootstrap-token zq7 --v=2", "kubelet --bootstrap-token … --v=2")]
    #[case::assigned("--token=zq7 and REGISTRY_PASSWORD=zq7", "--token=… and REGISTRY_PASSWORD=…")]
    #[case::bootstrap("the token abcdef.0123456789abcdef fails", "the token … fails")]
    #[case::jwt("got eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJr.c2ln", "got …")]
    #[case::pem(
        "key -----BEGIN RSA PRIVATE KEY-----\nzq7\n-----END RSA PRIVATE KEY----- is bad",
        "key … is bad"
    )]
    #[case::pem_cut_off("key -----BEGIN PRIVATE KEY-----\nzq7", "key …")]
    #[case::base64(
        "client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=",
        "client-key-data: …"
    )]
    #[case::base64_alone("bad value LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=!", "bad value …!")]
    fn secrets_are_hidden(#[case] said: &str, #[case] shown: &str) {
        assert_eq!(sentence(said), shown);
    }

    #[rstest]
    #[case("FlagsNotEditable: /var/lib/kubelet/kubeadm-flags.env: line 3: there is a quote without an end")]
    #[case("registry.k8s.io/pause@sha256:3d380ca8864549e74af4b29c10f9cb0956236dfb01c40ca076fb6c37253234db")]
    #[case(
        "/opt/transship/containerd-2.4.2-linux-amd64/bin/containerd says \"2.4.1\", and 2.4.2 was planned"
    )]
    #[case("shop/web-7d4b9c6f5d-x2x8p: a budget (PodDisruptionBudget web) refuses; 2026-11-28T03:35:03Z")]
    #[case("/var/lib/docker/overlay2/3d380ca8864549e74af4b29c10f9cb0956236dfb01c40ca076fb6c37253234db/diff")]
    #[case(
        "unit containerd.service: active=failed result=exit-code; the kubelet's node-role.kubernetes.io/etcd"
    )]
    #[case("0f8fad5b-d9cb-469f-a165-70867728950e")]
    fn what_an_operator_needs_is_shown(#[case] said: &str) {
        assert_eq!(sentence(said), said);
    }

    #[test]
    fn every_text_of_a_document_is_redacted() {
        let document = json!({ "status": {
            "message": "token: zq7",
            "findings": [{ "message": "https://me:zq7@mirror/a" }],
            "password": "zq7",
            "count": 3,
        } });
        assert_eq!(
            Published::of(document).to_string(),
            json!({ "status": {
                "message": "token: …",
                "findings": [{ "message": "https://…@mirror/a" }],
                "password": "…",
                "count": 3,
            } })
            .to_string()
        );
    }

    #[test]
    fn a_value_is_hidden_whose_name_is_seen_only_once_its_word_is_redacted() {
        assert_eq!(sentence("token?http://\n=\nzq7"), "token\n=\n…");
    }

    proptest! {
        #[test]
        fn a_sentence_is_redacted_once(text in "(\\PC|\n|[@:/=?#\"' ]|token|Bearer |http://){0,30}") {
            let once = sentence(&text);
            prop_assert_eq!(sentence(&once), once);
        }

        /// However other programs show a secret, nothing of it is left.
        #[test]
        fn no_form_of_a_secret_passes(
            secret in "zq7[a-z0-9]{8,20}zq7",
            form in prop::sample::select(vec![
                "cannot use Authorization: Bearer <S>",
                "header \"authorization\": \"Basic <S>\"",
                "https://me:<S>@host:3128/x refused",
                "proxy me:<S>@host:3128 refused",
                "GET https://host/a.tgz?X-Signature=<S>&x=1 failed",
                "{\"auths\":{\"r\":{\"auth\":\"<S>\"}}}",
                "3 | client-key-data: <S>",
                "password = \"<S>\"",
                "--token=<S>",
                "--client-secret '<S>'",
                "-----BEGIN EC PRIVATE KEY-----\n<S>\n-----END EC PRIVATE KEY-----",
            ]),
        ) {
            let shown = sentence(&form.replace("<S>", &secret));
            prop_assert!(!shown.contains("zq7"), "{}", shown);
        }
    }
}
