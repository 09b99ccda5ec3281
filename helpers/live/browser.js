// The page's half of helpers/live/browser.py: camera -> canvas -> JPEG -> kernel, one frame at a time.
//
// kernel -> page: {kind: "start", run}                 who is there?
//                 {kind: "go", run, page, side, quality}  you: open the camera
//                 {kind: "ack", run, seq}              frame seq arrived, the next one please
//                 {kind: "stop", run, page?}           give the camera back (page: only this one)
//                 {kind: "ask"}                        who shows the panel?
// page -> kernel: {kind: "here", run, page}            I am, and the panel can be seen
//                 {kind: "open", run, page}            permission given, frames come
//                 {kind: "frame", run, page, seq, time} + [JPEG]; time: of capture, ms of the page's clock
//                 {kind: "failed", run, page, name, message}
//                 {kind: "leaving", run, page}         I am about to be closed or reloaded, unless somebody says no
//                 {kind: "present", page}              I do; answered from here, for a hidden page's timers are slow
//                 {kind: "left", page}                 I am being closed

const SILENT_MS = 120000; // a kernel that acknowledges nothing for so long is gone
const HIDDEN_MS = 1000; // a page that cannot be seen gets no video callbacks: a frame this often
const RATE_MS = 40; // the same in an old browser without video callbacks
const WORDS = {
  asking: "Your browser asks whether this page may use the camera.",
  open: "The camera is on; its frames go to the kernel.",
};

const style = `
.har-camera { display: flex; align-items: center; gap: .5em; line-height: 1.5; }
.har-camera[data-state="off"] { display: none; }
.har-camera-light { width: .7em; height: .7em; border-radius: 50%; background: #E69F00; }
.har-camera[data-state="open"] .har-camera-light { background: #D55E00; }`;

export default () => {
  const page = crypto.getRandomValues(new Uint32Array(2)).join("-"); // this page, among others with the same notebook
  const views = new Set();
  let model, job = null;

  const tell = (kind, more = {}, buffers = []) => {
    try {
      model.send({ kind, page, ...more }, undefined, buffers);
    } catch { // the connection is gone, and with it everybody who could look at the frames
      stop();
    }
  };

  const show = () => {
    const state = job?.state ?? "off";
    for (const view of views) {
      view.dataset.state = state;
      view.querySelector(".har-camera-text").textContent = WORDS[state] ?? "";
    }
  };

  const stop = () => {
    const old = job;
    job = null;
    clearTimeout(old?.silence);
    old?.stream?.getTracks().forEach((track) => track.stop());
    if (old?.video) old.video.srcObject = null;
    show();
  };

  const fail = (run, name, message = "") => {
    if (job?.run !== run) return;
    stop();
    tell("failed", { run, name, message });
  };

  const open = async ({ run, side, quality }) => {
    stop();
    const mine = (job = { run, side, quality, state: "asking", seq: 0, waiting: null });
    show();
    if (!navigator.mediaDevices?.getUserMedia) return fail(run, "insecure");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: side }, height: { ideal: (side * 3) / 4 }, frameRate: { ideal: 30 } },
      });
    } catch (error) {
      return fail(run, error.name, error.message);
    }
    if (job !== mine) return stream.getTracks().forEach((track) => track.stop()); // Stop came before the answer
    mine.stream = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => fail(run, "ended"));
    mine.canvas = document.createElement("canvas");
    mine.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    try {
      await mine.video.play();
    } catch (error) {
      return fail(run, error.name, error.message);
    }
    if (job !== mine) return;
    mine.state = "open";
    tell("open", { run });
    show();
    send(mine);
  };

  // The time of the next new frame; a page that cannot be seen has no such moment and is served by a timer.
  const newFrame = (video) => new Promise((resolve) => {
    const done = (time) => {
      clearInterval(timer);
      resolve(time);
    };
    const callbacks = "requestVideoFrameCallback" in video;
    const timer = setInterval(() => (document.hidden || !callbacks) && done(performance.now()),
      callbacks ? HIDDEN_MS : RATE_MS);
    if (callbacks) video.requestVideoFrameCallback((now, frame) => done(frame.captureTime ?? now));
  });

  const send = async (mine) => {
    try {
      let time = await newFrame(mine.video);
      while (job === mine && !mine.video.videoWidth) time = await newFrame(mine.video);
      if (job !== mine) return;
      const { video, canvas } = mine;
      const scale = Math.min(1, mine.side / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = Math.max(1, Math.round(video.videoWidth * scale));
      canvas.height = Math.max(1, Math.round(video.videoHeight * scale));
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", mine.quality));
      const jpeg = await blob.arrayBuffer();
      if (job !== mine) return;
      mine.waiting = mine.seq;
      mine.silence = setTimeout(() => fail(mine.run, "silent"), SILENT_MS);
      tell("frame", { run: mine.run, seq: mine.seq++, time }, [jpeg]);
    } catch (error) {
      fail(mine.run, error.name, error.message);
    }
  };

  const receive = (message) => {
    const { kind, run } = message;
    if (kind === "ask" && views.size) tell("present");
    if (kind === "start" && views.size) tell("here", { run });
    if (kind === "go" && message.page === page) open(message);
    if (kind === "ack" && job?.run === run && job.waiting === message.seq) {
      clearTimeout(job.silence);
      job.waiting = null;
      send(job);
    }
    if (kind === "stop" && job?.run === run && (message.page ?? page) === page) stop();
  };

  return {
    initialize(context) {
      model = context.model;
      model.on("msg:custom", receive);
      // What is sent while a page closes may not get through; this goes out before, and is forgotten if the page stays.
      const warn = () => job && tell("leaving", { run: job.run });
      const leave = () => {
        fail(job?.run, "gone");
        tell("left");
      };
      const cut = () => stop(); // the kernel was restarted, or the connection to it given up
      window.addEventListener("beforeunload", warn);
      window.addEventListener("pagehide", leave);
      model.on("comm_live_update", cut);
      return () => {
        window.removeEventListener("beforeunload", warn);
        window.removeEventListener("pagehide", leave);
        stop();
      };
    },
    render({ el }) {
      const view = document.createElement("div");
      view.className = "har-camera";
      view.innerHTML = `<span class="har-camera-light" aria-hidden="true"></span><span class="har-camera-text"></span>`;
      el.append(Object.assign(document.createElement("style"), { textContent: style }), view);
      views.add(view);
      show();
      return () => {
        views.delete(view);
        if (!views.size) fail(job?.run, "closed");
      };
    },
  };
};
