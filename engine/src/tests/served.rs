//! What the tests of services and middleware share: loading one, asking it, reading what it says.

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc;

use super::*;

/// A component with all the time that it wants, unless `change` says otherwise.
pub(super) async fn loaded(component: &str, change: impl FnOnce(&mut PluginPlan)) -> Arc<Plugin> {
    let mut plan = plan("{}");
    plan.limits.timeout = None;
    change(&mut plan);
    load_with(component, plan).await
}

pub(super) async fn ask_for(plugin: &Plugin, path: &str) -> Result<Response<ServiceBody>, Failure> {
    let request = Request::get(format!("http://a.example{path}")).header("host", "a.example");
    let request = request.body(Full::new(Bytes::new())).expect("a good request");
    plugin.serve(0, "id", false, request).await
}

pub(super) async fn text(response: Response<ServiceBody>) -> String {
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

/// A body that is written while it is read.
pub(super) fn written()
-> (mpsc::Sender<Bytes>, impl http_body::Body<Data = Bytes, Error = std::io::Error> + Send) {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
    let frames = futures_util::StreamExt::map(pieces, |piece| Ok(Frame::data(piece)));
    (sender, StreamBody::new(frames))
}

/// Sends twenty pieces and sees what `back` makes of each come back before it sends the next.
pub(super) async fn converse(
    sender: mpsc::Sender<Bytes>,
    mut body: ServiceBody,
    back: impl Fn(&str) -> String,
) {
    for number in 0..20 {
        let piece = format!("piece {number}");
        sender.send(piece.clone().into()).await.expect("it reads");
        let frame = body.frame().await.expect("more").expect("a frame");
        assert_eq!(frame.into_data().expect("data"), back(&piece));
    }
    drop(sender);
    assert!(body.frame().await.is_none());
}

/// Until the plugin, which takes one request at a time, takes another.
pub(super) async fn room(plugin: &Plugin) {
    let taken = async {
        while ask_for(plugin, "/").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the guest ended with its visitor");
}
