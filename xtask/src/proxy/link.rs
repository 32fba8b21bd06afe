//! One connection through the proxy: two sockets and a thread for each direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::Shared;
use super::frames::{Message, first_message};

/// How often a waiting thread looks whether its link is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes taken from a socket at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What becomes of a link. A higher value replaces a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doom {
    /// Nothing passes; both sides are left in the belief that the other is there.
    Silence = 1,
    /// Both sides see an end of the stream.
    Cut = 2,
    /// Both sides see a reset.
    Reset = 3,
}

/// An open link; its threads end by themselves.
pub(super) struct Link {
    /// 0 while it works, else a [`Doom`].
    fate: Arc<AtomicU8>,
}

impl Link {
    /// Connects the client with the server and starts to pump. Without a server the client is
    /// dropped once it has said what it wants, as by a machine where nothing listens.
    pub(super) fn open(client: TcpStream, shared: Arc<Shared>) -> Result<Link> {
        let fate = Arc::new(AtomicU8::new(0));
        let pumping = Arc::clone(&fate);
        std::thread::Builder::new().name("pg-proxy-link".into()).spawn(move || {
            let pump = Pump { shared, fate: pumping };
            // whichever way it ended, the daemon and the server are told by their sockets
            let _ = pump.run(client);
            pump.fate.fetch_max(Doom::Cut as u8, Ordering::Relaxed);
        })?;
        Ok(Link { fate })
    }

    pub(super) fn is_open(&self) -> bool {
        self.fate.load(Ordering::Relaxed) < Doom::Cut as u8
    }

    pub(super) fn doom(&self, doom: Doom) {
        self.fate.fetch_max(doom as u8, Ordering::Relaxed);
    }
}

struct Pump {
    shared: Arc<Shared>,
    fate: Arc<AtomicU8>,
}

impl Pump {
    fn run(&self, mut client: TcpStream) -> Result<()> {
        let mut sent = Vec::new();
        self.prepare(&client)?;
        let first = loop {
            if let Some(message) = first_message(&sent, false)? {
                break message;
            }
            if !self.read(&mut client, &mut sent)? {
                return Ok(());
            }
        };
        if let Message::Startup { is_replication, .. } = first {
            self.shared.see_start(is_replication);
        }
        let taken = first.bytes().len();
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.shared.upstream))?;
        self.prepare(&server)?;
        server.write_all(first.bytes())?;
        sent.drain(..taken);
        let (backward, forward) = (server.try_clone()?, client.try_clone()?);
        std::thread::scope(|scope| {
            scope.spawn(|| self.end_with(self.backward(backward, forward)));
            self.end_with(self.forward(&mut client, &mut server, sent));
        });
        self.close(&client);
        self.close(&server);
        Ok(())
    }

    fn prepare(&self, socket: &TcpStream) -> Result<()> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        Ok(())
    }

    /// The end of one direction is the end of the link.
    fn end_with(&self, _outcome: Result<()>) {
        self.fate.fetch_max(Doom::Cut as u8, Ordering::Relaxed);
    }

    /// Daemon to server, message by message; a status update is looked at before it goes on.
    fn forward(
        &self,
        client: &mut TcpStream,
        server: &mut TcpStream,
        mut sent: Vec<u8>,
    ) -> Result<()> {
        loop {
            let mut taken = 0;
            while let Some(message) = first_message(&sent[taken..], true)? {
                if !self.may_pass() {
                    return Ok(());
                }
                if let Message::Status { status, .. } = &message {
                    self.shared.see_status(*status);
                }
                server.write_all(message.bytes())?;
                taken += message.bytes().len();
            }
            sent.drain(..taken);
            if !self.read(client, &mut sent)? {
                return Ok(());
            }
        }
    }

    /// Server to daemon, as it comes.
    fn backward(&self, mut server: TcpStream, mut client: TcpStream) -> Result<()> {
        let mut bytes = Vec::new();
        while self.read(&mut server, &mut bytes)? && self.may_pass() {
            client.write_all(&bytes)?;
            bytes.clear();
        }
        // in silence the daemon does not even hear that the server is gone
        self.may_pass();
        Ok(())
    }

    /// Appends what comes next; false at the end of the stream or of the link.
    fn read(&self, from: &mut TcpStream, into: &mut Vec<u8>) -> Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.fate() < Doom::Cut as u8 {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    into.extend(&chunk[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Waits until bytes may pass; false once the link is at its end.
    fn may_pass(&self) -> bool {
        let mut delay = self.shared.delay();
        loop {
            match self.fate() {
                0 if delay.is_zero() => return true,
                silent_or_open if silent_or_open < Doom::Cut as u8 => {}
                _ => return false,
            }
            std::thread::sleep(LOOK_INTERVAL);
            delay = delay.saturating_sub(LOOK_INTERVAL);
        }
    }

    fn fate(&self) -> u8 {
        self.fate.load(Ordering::Relaxed)
    }

    fn close(&self, socket: &TcpStream) {
        if self.fate() == Doom::Reset as u8 {
            // a close without lingering throws away what is under way and resets the connection
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        } else {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
