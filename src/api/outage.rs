//! Errors of the API server that may pass.

use kube::Error;

/// Whether the API server is away, busy or starting, or what was read is old: asking again may help, and nobody has to do
/// anything.
pub fn may_pass(error: &Error) -> bool {
    match error {
        // A conflict and an expired list ask for a new look.
        Error::Api(status) => status.code >= 500 || matches!(status.code, 409 | 410 | 429),
        Error::Service(_) | Error::HyperError(_) | Error::ReadEvents(_) => true,
        // A request that cannot be made, or an answer that cannot be read: the next one is no other.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use rstest::rstest;

    use super::*;

    fn answer(code: u16) -> Error {
        Error::Api(Box::new(Status {
            code,
            ..Status::default()
        }))
    }

    #[rstest]
    #[case::bad_request(answer(400), false)]
    #[case::unauthorized(answer(401), false)]
    #[case::forbidden(answer(403), false)]
    #[case::not_found(answer(404), false)]
    #[case::conflict(answer(409), true)]
    #[case::expired_list(answer(410), true)]
    #[case::invalid(answer(422), false)]
    #[case::too_many_requests(answer(429), true)]
    #[case::internal(answer(500), true)]
    #[case::bad_gateway(answer(502), true)]
    #[case::starting(answer(503), true)]
    #[case::timeout(answer(504), true)]
    #[case::no_connection(Error::Service("connection refused".into()), true)]
    #[case::broken_stream(Error::ReadEvents(std::io::Error::other("reset")), true)]
    #[case::unreadable(Error::SerdeError(serde_json::from_str::<u8>("x").unwrap_err()), false)]
    #[case::no_tls(Error::TlsRequired, false)]
    #[case::endless_line(Error::LinesCodecMaxLineLengthExceeded, false)]
    fn some_errors_pass(#[case] error: Error, #[case] passes: bool) {
        assert_eq!(may_pass(&error), passes, "{error}");
    }
}
