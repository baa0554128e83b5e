// The server: what it offers, and answers as they come. All addresses are relative to the page's own.

const server = { model: null, length: null, offers: {}, key: "" };

class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(server.key && { Authorization: `Bearer ${server.key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const { status } = response;
  throw new Refusal(messageOf(await response.text()) ?? `The server answers with status ${status}.`, status);
}

function messageOf(body) {
  try {
    const { error } = JSON.parse(body);
    return typeof error === "string" ? error : (error.message ?? null);
  } catch {
    return null;
  }
}

// Reads the server's model and limits.
async function loadModel() {
  const { data } = await (await ask("v1/models")).json();
  if (!data?.length) throw new Refusal("The server names no model.");
  const [{ id, max_model_len: length, s1_jax: offers }] = data;
  Object.assign(server, { model: id, length: length ?? null, offers: offers ?? {} });
}

// Sends a chat request and hands on each frame of its stream.
async function complete(body, signal, take) {
  const headers = { "Content-Type": "application/json" };
  const response = await ask("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  for await (const frame of frames(response.body)) take(frame);
}

// The frames of a stream of server-sent events up to "[DONE]". One that tells of an error is thrown.
async function* frames(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Refusal("The connection ended before the answer did.");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const sent = line.slice(5).trim();
        if (sent === "[DONE]") return;
        const frame = JSON.parse(sent);
        if (frame.error) throw new Refusal(messageOf(sent) ?? "The server failed.");
        yield frame;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refusal) throw error;
    throw new Refusal(error instanceof SyntaxError ? "The server sent what is no JSON." : "The connection broke.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
