//! Access: tokens, foreign pages, and heads that are too large.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode, Uri};

use super::refusal::Refused;
use crate::error::Result;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, TOKEN_BYTES};
use crate::setting::SettingError;

/// The cookie in which a browser keeps the token.
pub(crate) const COOKIE_NAME: &str = "rtpt_token";

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A process of this device, with the user and the process that the kernel names.
    Local {
        /// User.
        uid: u32,
        /// Process.
        pid: Option<i32>,
    },
    /// Somebody over TCP.
    Remote(SocketAddr),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid, pid: Some(pid) } => write!(f, "uid {uid} pid {pid}"),
            Self::Local { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Remote(address) => write!(f, "{address}"),
        }
    }
}

/// A secret that clients over TCP must know. Kept as its digest, whose comparison takes the same time for any guess.
#[derive(Clone, Debug)]
pub(crate) struct Token(blake3::Hash);

impl Token {
    /// The token in the content of a file, without white space around it.
    ///
    /// # Errors
    /// It is too short, too long, or has characters that a header cannot have.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let token = text.trim();
        let (least, most) = TOKEN_BYTES;
        // A cookie's value may have neither semicolon, comma nor quote (RFC 6265, section 4.1.1).
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"'));
        if !(least..=most).contains(&token.len()) || !printable {
            let expected = format!(
                "{least} to {most} ASCII letters, digits and signs without spaces, quotes, commas and semicolons, such as `openssl rand -hex 16` prints"
            );
            let found = match printable {
                // No more than this of a file is read.
                true if token.len() > most => format!("more than {most} characters"),
                true => format!("{} characters", token.len()),
                false => "a text with characters that are not allowed".to_string(),
            };
            return Err(SettingError { what: "the token", expected, found }.into());
        }
        Ok(Self(blake3::hash(token.as_bytes())))
    }

    /// True if this is the token.
    pub(crate) fn is(&self, guess: &str) -> bool {
        self.0 == blake3::hash(guess.as_bytes())
    }
}

/// Refuses a head past the limits, which no request needs.
pub(crate) fn check_head(uri: &Uri, headers: &HeaderMap) -> std::result::Result<(), Refused> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes + uri.to_string().len() > HEADER_BYTES_MAX {
        let message = format!(
            "the request has {} headers, and with its path {} bytes, expected at most {HEADERS_MAX} and {HEADER_BYTES_MAX}",
            headers.len(),
            bytes + uri.to_string().len()
        );
        return Err(Refused::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message));
    }
    Ok(())
}

/// Refuses requests that may not be answered.
///
/// The Unix socket is guarded by its file mode. Over TCP a token is asked for where there is one; else only loopback
/// is listened on, and names that are not this device's own are refused, so that a web page somewhere cannot reach the
/// daemon through the visitor's browser. Changes are taken from no other page than the daemon's own.
pub(crate) fn check_peer(
    peer: &Peer,
    token: Option<&Token>,
    method: &Method,
    headers: &HeaderMap,
) -> std::result::Result<(), Refused> {
    if matches!(peer, Peer::Local { .. }) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    match token {
        Some(token) => {
            // The header counts first, right or wrong: it is sent on purpose, a cookie by every request of a browser.
            // Schemes have no case (RFC 9110, section 11.1).
            let bearer = text(AUTHORIZATION).and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("Bearer").then_some(token)
            });
            if !bearer.or_else(|| cookie(headers)).is_some_and(|guess| token.is(guess.trim())) {
                let message = "a token is needed: send the header `Authorization: Bearer TOKEN`, or open the page as /?token=TOKEN";
                return Err(Refused::new(StatusCode::UNAUTHORIZED, "token_needed", message));
            }
        }
        None if !is_own_name(host) => {
            let message = format!("the name {host:?} is not one of this device's own; use 127.0.0.1, ::1 or localhost");
            return Err(Refused::new(StatusCode::FORBIDDEN, "foreign_name", message));
        }
        None => {}
    }
    // Browsers name the page that a request comes from, other clients send no `Origin`. With a token as well: a browser
    // sends the cookie whichever page asks.
    let foreign = text(ORIGIN).is_some_and(|origin| origin.split_once("://").is_none_or(|(_, page)| page != host));
    // Reading is left to the browser, which keeps answers without CORS headers from other pages.
    if foreign && !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "foreign_page",
            "another site's page may not change anything here",
        ));
    }
    Ok(())
}

/// The token that a browser keeps.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// True if a host, with or without a port, means this device.
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        // An IPv6 address has brackets in a `Host`, so the last colon outside of them is the port's.
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Peer {
        Peer::Remote("192.0.2.7:5000".parse().unwrap())
    }

    fn checked(token: Option<&str>, method: Method, pairs: &[(&'static str, &str)]) -> bool {
        let token = token.map(|token| Token::parse(token).unwrap());
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check_peer(&remote(), token.as_ref(), &method, &headers).is_ok()
    }

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        assert!(!checked(Some(SECRET), Method::GET, &[("host", "camera:8080")]));
        for (header, value, fits) in [
            ("authorization", "Bearer 0123456789abcdef", true),
            ("authorization", "bearer 0123456789abcdef", true),
            ("authorization", "Basic 0123456789abcdef", false),
            ("authorization", "Bearer 0123456789abcdeg", false),
            ("authorization", "Bearer ", false),
            ("authorization", "0123456789abcdef", false),
            ("cookie", "a=b; rtpt_token=0123456789abcdef", true),
            ("cookie", "rtpt_token=wrong", false),
            ("cookie", "x_rtpt_token=0123456789abcdef", false),
        ] {
            assert_eq!(checked(Some(SECRET), Method::GET, &[("host", "camera"), (header, value)]), fits, "{value}");
        }
        let local = Peer::Local { uid: 0, pid: None };
        let token = Token::parse(SECRET).unwrap();
        assert!(
            check_peer(&local, Some(&token), &Method::PUT, &HeaderMap::new()).is_ok(),
            "the socket has its file mode"
        );
    }

    #[test]
    fn without_a_token_only_own_names_are_answered() {
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("[::1]:8080", true),
            ("127.8.8.8", true),
            ("evil.example:8080", false),
            ("192.0.2.1", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(checked(None, Method::GET, &[("host", host)]), own, "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let with = |method, origin| checked(None, method, &[("host", "localhost:8080"), ("origin", origin)]);
        assert!(with(Method::PUT, "http://localhost:8080") && with(Method::GET, "http://evil.example"));
        for origin in ["http://evil.example", "http://localhost:8081", "null"] {
            assert!(!with(Method::PUT, origin) && !with(Method::POST, origin), "{origin}");
        }
    }

    #[test]
    fn tokens_are_long_enough_and_fit_into_a_header() {
        assert!(Token::parse(&format!(" {SECRET}\n")).unwrap().is(SECRET));
        for wrong in ["", "short", "0123456789abcde f", "0123456789abcdef;", &"x".repeat(1025)] {
            assert!(Token::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Token::parse(&"x".repeat(1024)).is_ok());
    }
}
