//! Connections: so many at once, each with a time to say what it wants and to take what it is answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use switchable_quant::reader::running::stop::StopFlag;

use super::routes::no_room;
use super::timed_writes::TimedWrites;

/// The longest time that the head of a request may take, which is also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// The longest time for what is under way when the server is stopped.
const ENDING_TIME: Duration = Duration::from_secs(20);
/// How often the flag is looked at.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait where the system gives no further connection, as without free file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves at most `most` connections at once until it is asked to stop, then ends those that there are.
pub(super) async fn serve(listener: TcpListener, routes: Router, most: usize, stop: &StopFlag) {
    let (ending, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(most)));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stop) => break,
        };
        let Ok((stream, _)) = stream else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tokio::spawn(turn_away(stream));
            continue;
        };
        // Answers are one write: nothing is gained by waiting for more of them.
        _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(TimedWrites::new(stream)), service);
        let connection = ending.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off has nobody to be told of it.
            _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    _ = timeout(ENDING_TIME, ending.shutdown()).await;
}

async fn stopped(stop: &StopFlag) {
    while !stop.is_requested() {
        sleep(STOP_INTERVAL).await;
    }
}

async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let said = async {
        stream.write_all(no_room().as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(PAUSE, said).await.unwrap_or(Ok(()))
}
