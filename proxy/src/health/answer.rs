//! The status of an HTTP/1.x answer, read from bytes that may be anything. No more than the status line is understood.

/// Longer answers than this without a status are none.
pub(crate) const LIMIT: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may become one.
    More,
    Status(u16),
    /// This is no HTTP.
    Bad,
}

/// What `bytes`, all that has come so far, say. Interim answers (100 to 199, but for 101) come before the real one.
pub(crate) fn status(bytes: &[u8]) -> Answer {
    let mut rest = &bytes[..bytes.len().min(LIMIT)];
    let unfinished = if bytes.len() >= LIMIT { Answer::Bad } else { Answer::More };
    loop {
        let known = rest.len().min(PREFIX.len());
        if rest[..known] != PREFIX[..known] {
            return Answer::Bad;
        }
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return unfinished };
        match of_line(&rest[PREFIX.len().min(end)..end]) {
            Some(100 | 102..=199) => {}
            Some(status) => return Answer::Status(status),
            None => return Answer::Bad,
        }
        let Some(behind) = behind_fields(&rest[end + 1..]) else { return unfinished };
        rest = behind;
    }
}

const PREFIX: &[u8] = b"HTTP/1.";

/// Of a status line, from the minor version on.
fn of_line(line: &[u8]) -> Option<u16> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let [b'0'..=b'9', b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..] =
        line
    else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    matches!(reason, [] | [b' ', ..]).then(|| digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
}

/// What comes after the empty line that ends the fields.
fn behind_fields(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        if matches!(line, [] | [b'\r']) {
            return Some(behind);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_status_is_read_from_what_servers_send() {
        for (text, status) in [
            ("HTTP/1.1 200 OK\r\n", 200),
            ("HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n", 404),
            ("HTTP/1.1 204\r\n", 204),
            ("HTTP/1.1 503 \n", 503),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 302 Found\r\n", 302),
            ("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n", 200),
            ("HTTP/1.1 101 Switching Protocols\r\n", 101),
        ] {
            assert_eq!(super::status(text.as_bytes()), Answer::Status(status), "{text}");
        }
    }

    #[test]
    fn what_is_no_http_is_none() {
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200\r\n",
            "HTTP/1.1 20 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1  200 OK\r\n",
            "HTTP/1.1 -20 OK\r\n",
            "HTTP/1.x 200 OK\r\n",
            "HTTP/1.\r\n",
            "\r\n",
            "h",
        ] {
            assert_eq!(status(text.as_bytes()), Answer::Bad, "{text}");
        }
        assert_eq!(status(b""), Answer::More);
    }

    #[test]
    fn an_answer_without_end_ends() {
        for start in ["HTTP/1.1 200 ", "HTTP/1.1 100 \r\nX: ", "HTTP/1.1 100\n\nHTTP/1.1 100\nX: "] {
            let long = [start.as_bytes(), &[b'a'; LIMIT]].concat();
            assert_eq!(status(&long), Answer::Bad);
            assert_eq!(status(&long[..LIMIT - 1]), Answer::More);
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_was_said(
            bytes in "(HTTP/1\\.1 [0-9]{3}( [a-z]{0,3})?\r?\n(x: y\r\n)?\r?\n?){0,4}.{0,9}",
        ) {
            let bytes = bytes.as_bytes();
            let mut said = Answer::More;
            for end in 0..=bytes.len() {
                let now = status(&bytes[..end]);
                prop_assert!(said == Answer::More || now == said);
                said = now;
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            crate::hostile::answer(&bytes);
            crate::hostile::answer(&[b"HTTP/1.1 1".as_slice(), &bytes].concat());
        }
    }
}
