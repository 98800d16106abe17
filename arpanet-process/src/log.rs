//! A container's output in a file: pieces, each with its stream and time.
//!
//! A piece is one byte of stream, seven of nothing, eight of nanoseconds since 1970, four of length, and the bytes.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arpanet_core::runtime::{Output, OutputStream};
use bytes::Bytes;

const HEAD: usize = 20;

/// A piece is not longer, so that a damaged length is noticed.
const LIMIT: usize = 1 << 20;

/// A piece of output and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: SystemTime,
    pub(crate) output: Output,
}

/// Where the output before the newest is: the file that the newest took the place of.
fn older(path: &Path) -> PathBuf {
    path.with_extension("old")
}

/// Appends to the file, and begins a new one when it is full: one before it is kept.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    /// Where the last whole piece ends.
    end: u64,
    /// How long a file becomes.
    limit: u64,
    /// Bytes of output that could not be written.
    lost: u64,
}

impl Writer {
    /// Opens the file, and cuts off half a piece at its end: what the power failure left. Both files together become no
    /// longer than the limit, but for one piece.
    pub(crate) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = create(path)?;
        let mut reader = Reader::over(path, file.try_clone()?);
        while reader.piece_here()?.is_some() {}
        let end = reader.position;
        file.set_len(end)?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            end,
            limit: limit / 2,
            lost: 0,
        };
        writer.file.seek(SeekFrom::Start(end))?;
        Ok(writer)
    }

    /// Puts a new file in the place of a full one. Where that can't be made, the full one goes on.
    fn turn_over(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let file = create(&fresh)?;
        fs::rename(&self.path, older(&self.path))?;
        // Readers go on in what is at the path, once it is another file.
        fs::rename(&fresh, &self.path)?;
        self.file = file;
        self.end = 0;
        Ok(())
    }

    /// Appends a piece. What can't be written is counted and told in the log when there is room again, so that the
    /// command goes on and the gap is seen.
    pub(crate) fn append(&mut self, stream: OutputStream, bytes: &[u8], now: SystemTime) {
        for chunk in bytes.chunks(LIMIT) {
            let told = self.lost == 0 || self.tell_loss(now).is_ok();
            if !told || self.write(stream, chunk, now).is_err() {
                self.lost += chunk.len() as u64;
            }
        }
    }

    fn tell_loss(&mut self, now: SystemTime) -> io::Result<()> {
        let notice = format!(
            "[arpanet2: {} bytes of output were lost here, since the disk was full]\n",
            self.lost
        );
        self.write(OutputStream::Stderr, notice.as_bytes(), now)?;
        self.lost = 0;
        Ok(())
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        if self.end >= self.limit && self.end > 0 {
            let _ = self.turn_over();
        }
        let mut piece = Vec::with_capacity(HEAD + bytes.len());
        piece.extend_from_slice(&[
            u8::from(stream == OutputStream::Stderr),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        let age = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        piece.extend_from_slice(&nanos.to_be_bytes());
        let length = u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?;
        piece.extend_from_slice(&length.to_be_bytes());
        piece.extend_from_slice(bytes);
        if let Err(error) = self.file.write_all(&piece) {
            // Half a piece would hide all that comes after it.
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            return Err(error);
        }
        self.end += piece.len() as u64;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Reads the files, from the beginning on. At the end it can be asked again later.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    position: u64,
    /// To be read after this one, which is written no more.
    following: VecDeque<File>,
}

impl Reader {
    /// `None` where nothing was ever written.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut files = VecDeque::new();
        for path in [older(path), path.to_owned()] {
            if let Some(file) = open(&path)?
                && !files.back().is_some_and(|before| is_same(before, &file))
            {
                files.push_back(file);
            }
        }
        let first = files.pop_front();
        Ok(first.map(|file| Self {
            following: files,
            ..Self::over(path, file)
        }))
    }

    fn over(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(64 << 10, file),
            position: 0,
            following: VecDeque::new(),
        }
    }

    /// The next whole piece; `None` at the end of what is written.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.piece_here()? {
                return Ok(Some(piece));
            }
            if let Some(file) = self.following.pop_front() {
                self.file = BufReader::with_capacity(64 << 10, file);
                self.position = 0;
                continue;
            }
            self.look_for_more()?;
            if self.following.is_empty() {
                return Ok(None);
            }
            // Once more here, for what was written between the end that was seen and the new file.
        }
    }

    /// The next whole piece of this file.
    fn piece_here(&mut self) -> io::Result<Option<Piece>> {
        match self.piece() {
            Ok(piece) => Ok(Some(piece)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.file.seek(SeekFrom::Start(self.position))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether another file is in the place of this one by now. A reader that was two files too slow misses one.
    fn look_for_more(&mut self) -> io::Result<()> {
        let here = self.file.get_ref();
        let Some(newest) = open(&self.path)?.filter(|file| !is_same(file, here)) else {
            return Ok(());
        };
        let between = open(&older(&self.path))?;
        let between = between.filter(|file| !is_same(file, here) && !is_same(file, &newest));
        self.following.extend(between.into_iter().chain([newest]));
        Ok(())
    }

    fn piece(&mut self) -> io::Result<Piece> {
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head)?;
        let mut nanos = [0; 8];
        nanos.copy_from_slice(&head[8..16]);
        let mut length = [0; 4];
        length.copy_from_slice(&head[16..]);
        let length = u32::from_be_bytes(length) as usize;
        if length > LIMIT || head[0] > 1 || head[1..8] != [0; 7] {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("the log is damaged at byte {}", self.position),
            ));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes)?;
        self.position += (HEAD + length) as u64;
        let stream = if head[0] == 1 {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        };
        Ok(Piece {
            at: UNIX_EPOCH + Duration::from_nanos(u64::from_be_bytes(nanos)),
            output: Output::new(stream, Bytes::from(bytes)),
        })
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|file| (file.dev(), file.ino())).ok();
    id(one) == id(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<(OutputStream, String)> {
        let mut reader = Reader::open(path).unwrap().unwrap();
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|piece| {
                let text = String::from_utf8(piece.output.bytes.to_vec()).unwrap();
                (piece.output.stream, text)
            })
            .collect()
    }

    #[test]
    fn pieces_keep_their_stream_order_and_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        assert!(Reader::open(&path).unwrap().is_none());
        let now = SystemTime::now();
        let mut writer = Writer::open(&path, 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, b"one\n", now);
        let mut reader = Reader::open(&path).unwrap().unwrap();
        let first = reader.next().unwrap().unwrap();
        assert_eq!(first.at, now);
        assert_eq!(reader.next().unwrap(), None);
        writer.append(OutputStream::Stderr, b"two\n", now);
        let second = reader.next().unwrap().unwrap();
        assert_eq!(&second.output.bytes[..], b"two\n");
        assert_eq!(second.output.stream, OutputStream::Stderr);
    }

    #[test]
    fn half_a_piece_at_the_end_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let now = SystemTime::now();
        let mut writer = Writer::open(&path, 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, b"whole", now);
        writer.append(OutputStream::Stdout, b"torn", now);
        let length = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 2)
            .unwrap();
        assert_eq!(read(&path).len(), 1);
        let mut writer = Writer::open(&path, 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, b"after", now);
        let texts: Vec<String> = read(&path).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["whole", "after"]);
    }

    #[test]
    fn a_full_file_is_followed_by_another() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = Writer::open(&path, 2_000).unwrap();
        writer.append(OutputStream::Stdout, b"first", SystemTime::now());
        let mut follower = Reader::open(&path).unwrap().unwrap();
        let mut followed = Vec::new();
        for number in 0..200 {
            let text = format!("{number}");
            writer.append(OutputStream::Stdout, text.as_bytes(), SystemTime::now());
            if number % 7 == 0 {
                while let Some(piece) = follower.next().unwrap() {
                    followed.push(String::from_utf8(piece.output.bytes.to_vec()).unwrap());
                }
            }
        }
        let length = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(length(&path) + length(&older(&path)) < 2_100);
        // Who keeps up misses nothing; who comes late finds the last of it.
        let wanted: Vec<String> = (0..197).map(|number| format!("{number}")).collect();
        assert_eq!(followed[0], "first");
        assert_eq!(followed[1..], wanted);
        let late: Vec<String> = read(&path).into_iter().map(|(_, text)| text).collect();
        assert!((40..100).contains(&late.len()), "{}", late.len());
        assert_eq!(late.last().unwrap(), "199");
        // And so does the next shim.
        drop(writer);
        let mut writer = Writer::open(&path, 2_000).unwrap();
        writer.append(OutputStream::Stdout, b"last", SystemTime::now());
        assert_eq!(read(&path).len(), late.len() + 1);
    }

    #[test]
    fn damage_is_an_error_and_not_an_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        std::fs::write(&path, [7; 40]).unwrap();
        assert!(Reader::open(&path).unwrap().unwrap().next().is_err());
        assert!(Writer::open(&path, 1 << 20).is_err());
    }

    #[test]
    fn what_was_lost_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = Writer::open(&path, 1 << 20).unwrap();
        writer.append(OutputStream::Stdout, b"kept", SystemTime::now());
        let whole = std::mem::replace(&mut writer.file, File::open("/dev/full").unwrap());
        writer.append(OutputStream::Stdout, b"lost!", SystemTime::now());
        writer.file = whole;
        writer.append(OutputStream::Stdout, b"again", SystemTime::now());
        let pieces = read(&path);
        assert_eq!(pieces.len(), 3);
        assert!(pieces[1].1.contains("5 bytes"), "{:?}", pieces[1]);
        assert_eq!(pieces[2].1, "again");
    }
}
