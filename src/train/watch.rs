//! [`Watch`]: every rank holds a connection to rank 0. The system closes it when a process ends, however it ends, so a
//! rank that was killed is missed at once, and one whose machine is gone within a minute.
//!
//! One byte says what goes on: a beat while all is well, a farewell before a rank ends by intent, an alarm from rank 0
//! when another rank has gone.

use super::ranks::Rendezvous;
use crate::bridge::BridgeError;
use crate::bridge::distributed::Store;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const BEAT: u8 = b'.';
const FAREWELL: u8 = b'q';
const ALARM: u8 = b'!';
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// A machine that says nothing for so long is taken for lost.
const SILENCE: Duration = Duration::from_secs(60);
const KEY: &str = "lossfloor/watch";

/// A rank that ended without a farewell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its number.
    pub rank: usize,
    /// Whether its connection closed; else it was silent for too long.
    pub closed: bool,
    /// Whether rank 0 has said so already.
    pub told: bool,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let how = if self.closed { "has ended" } else { "has not been heard of for a minute" };
        write!(f, "rank {} {how}, and the others cannot go on without it", self.rank)
    }
}

#[derive(Debug)]
struct Shared {
    links: Mutex<Vec<(usize, TcpStream)>>,
    /// Set before this process ends by intent: what happens to the others is no concern of it any more.
    parting: AtomicBool,
}

/// Connections between the ranks of a run.
#[derive(Debug)]
pub struct Watch(Arc<Shared>);

fn refused(error: std::io::Error) -> BridgeError {
    BridgeError(format!("the ranks of a run cannot watch each other: {error}"))
}

impl Watch {
    /// Connects to rank 0, or, as rank 0, waits for the others.
    pub fn begin(
        store: &Store,
        place: &Rendezvous,
        gone: impl Fn(&Gone) + Send + Sync + 'static,
    ) -> Result<Self, BridgeError> {
        let mut links = Vec::new();
        if place.rank == 0 {
            let listener = TcpListener::bind(("0.0.0.0", 0)).map_err(refused)?;
            let port = listener.local_addr().map_err(refused)?.port();
            store.set(KEY, port.to_string().as_bytes())?;
            for _ in 1..place.size {
                let (mut link, _) = listener.accept().map_err(refused)?;
                let mut number = [0; 4];
                link.read_exact(&mut number).map_err(refused)?;
                links.push((u32::from_le_bytes(number) as usize, link));
            }
        } else {
            let port = store.get(KEY)?;
            let port = std::str::from_utf8(&port).ok().and_then(|text| text.parse::<u16>().ok());
            let port = port.ok_or_else(|| BridgeError(format!("rank 0 has set no port as {KEY}")))?;
            let mut link = TcpStream::connect((place.host.as_str(), port)).map_err(refused)?;
            link.write_all(&(place.rank as u32).to_le_bytes()).map_err(refused)?;
            links.push((0, link));
        }
        let gone = Arc::new(gone);
        let mut readers = Vec::new();
        for (rank, link) in &links {
            link.set_read_timeout(Some(SILENCE)).map_err(refused)?;
            link.set_write_timeout(Some(BEAT_EVERY)).map_err(refused)?;
            readers.push((*rank, link.try_clone().map_err(refused)?));
        }
        let shared = Arc::new(Shared { links: Mutex::new(links), parting: AtomicBool::new(false) });
        for (rank, link) in readers {
            let (shared, gone) = (shared.clone(), gone.clone());
            std::thread::spawn(move || {
                if let Some(lost) = listen(rank, link)
                    && !shared.parting.load(Ordering::SeqCst)
                {
                    shared.send(ALARM);
                    gone(&lost);
                }
            });
        }
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            while let Some(shared) = weak.upgrade() {
                shared.send(BEAT);
                drop(shared);
                std::thread::sleep(BEAT_EVERY);
            }
        });
        Ok(Self(shared))
    }

    /// Tells the others that this process ends by intent.
    pub fn part(&self) -> Result<(), BridgeError> {
        self.0.parting.store(true, Ordering::SeqCst);
        self.0.send(FAREWELL);
        Ok(())
    }
}

impl Shared {
    /// To every rank that this one is connected to; one that cannot be reached is noticed by its reader.
    fn send(&self, byte: u8) {
        for (_, link) in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = link.write_all(&[byte]);
        }
    }
}

/// Reads until the other end has said goodbye (`None`) or is gone.
fn listen(rank: usize, mut link: TcpStream) -> Option<Gone> {
    let mut byte = [0];
    loop {
        match link.read(&mut byte) {
            Ok(0) => return Some(Gone { rank, closed: true, told: false }),
            Ok(_) => match byte[0] {
                FAREWELL => return None,
                ALARM => return Some(Gone { rank, closed: true, told: true }),
                _ => {}
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let silent = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                return Some(Gone { rank, closed: !silent, told: false });
            }
        }
    }
}
