//! Where a chunked body ends, and what is in it (RFC 9112, section 7.1).

/// The longest line of a size or a trailer.
const LINE: usize = 16 << 10;

/// Follows a chunked body as it comes by, however it is cut.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the line that is being read.
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: bool,
    },
    /// After the size: an extension, or the end of the line.
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    EndOfData,
    /// Fields after the last chunk; an empty line ends them.
    Trailer {
        empty: bool,
    },
    Done,
}

/// It is not one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Chunked {
    pub(super) const fn new() -> Self {
        Self {
            state: START,
            line: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what belongs to the body and gives its data to `sink`. Answers how many bytes it took.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let rest = &bytes[at..];
                    let take =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    sink(&rest[..take]);
                    at += take;
                    self.state = match left - take as u64 {
                        0 => State::EndOfData,
                        left => State::Data { left },
                    };
                    continue;
                }
                _ => {}
            }
            at += 1;
            self.line = if byte == b'\n' { 0 } else { self.line + 1 };
            if self.line > LINE {
                return Err(Malformed);
            }
            self.state = self.next(byte)?;
        }
        Ok(at)
    }

    /// What follows one byte outside of data.
    fn next(&self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size { value, .. }, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
                if value >> 60 != 0 {
                    return Err(Malformed);
                }
                State::Size {
                    value: value << 4 | digit,
                    digits: true,
                }
            }
            (
                State::Size {
                    value,
                    digits: true,
                }
                | State::Extension { value },
                b'\n',
            ) => match value {
                0 => State::Trailer { empty: true },
                left => State::Data { left },
            },
            (
                State::Size {
                    value,
                    digits: true,
                },
                b'\r' | b';' | b' ' | b'\t',
            ) => State::Extension { value },
            (State::Extension { value }, _) => State::Extension { value },
            (State::EndOfData, b'\r') if self.line == 1 => State::EndOfData,
            (State::EndOfData, b'\n') => START,
            (State::Trailer { empty: true }, b'\n') => State::Done,
            (State::Trailer { .. }, b'\n') => State::Trailer { empty: true },
            (State::Trailer { empty }, b'\r') => State::Trailer { empty },
            (State::Trailer { .. }, _) => State::Trailer { empty: false },
            _ => return Err(Malformed),
        })
    }
}

const START: State = State::Size {
    value: 0,
    digits: false,
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], cut: usize) -> Result<(usize, bool, Vec<u8>), Malformed> {
        let (mut body, mut data, mut taken) = (Chunked::new(), Vec::new(), 0);
        for piece in bytes.chunks(cut) {
            let took = body.take(piece, |part| data.extend_from_slice(part))?;
            taken += took;
            if took < piece.len() {
                break;
            }
        }
        Ok((taken, body.is_done(), data))
    }

    #[test]
    fn ends_where_the_body_does_however_it_is_cut() {
        let bodies: [(&[u8], &[u8]); 4] = [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (
                b"3;x=y\r\nhel\r\n00002 \r\nlo\r\n0\r\nA: b\r\nC: d\r\n\r\n",
                b"hello",
            ),
            (b"a\n0123456789\n0\n\n", b"0123456789"),
        ];
        for (body, data) in bodies {
            let whole = [body, b"POST /next"].concat();
            for cut in 1..=whole.len() {
                assert_eq!(
                    read(&whole, cut),
                    Ok((body.len(), true, data.to_vec())),
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn refuses_what_is_no_chunk() {
        for bad in [
            "\r\n",
            "x\r\n",
            "5\r\nhellox",
            "-1\r\n",
            "11111111111111111\r\n",
        ] {
            assert_eq!(read(bad.as_bytes(), 64), Err(Malformed), "{bad:?}");
        }
        assert_eq!(
            read(&[b"1;".to_vec(), vec![b'x'; LINE]].concat(), 64),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..99), 0..9), cut in 1usize..99) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend(format!("{:x}\r\n", part.len()).bytes());
                body.extend(part);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            prop_assert_eq!(read(&body, cut), Ok((body.len(), true, parts.concat())));
        }
    }
}
