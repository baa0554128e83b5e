"use strict";
// What all parts of the page use: elements whose contents are text, never HTML; numbers; what the browser remembers.

const state = { formulas: "drawn", query: "" }; // what report/formulas.js reads

const byId = (id) => document.getElementById(id);

// An element; attributes that begin with "on" are listeners, children are elements or text.
function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS(attributes.xmlns || "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (value === true) node.setAttribute(name, "");
    else if (name !== "xmlns" && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
  return node;
}

const button = (label, onclick, attributes = {}) => el("button", { type: "button", onclick, ...attributes }, label);

const number = (value, digits = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const some = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const seconds = (ms) => number(ms / 1000, ms < 9950 ? 2 : 1);

const quoted = (text) => `\u201c${text.trim()}\u201d`;

// The end of a text in a few words, on one line.
function lastWords(text) {
  const line = text.trimEnd().replace(/\s+/g, " ");
  return line.length > 24 ? `\u2026${line.slice(line.indexOf(" ", line.length - 24) + 1).slice(-24)}` : line;
}

// A browser may refuse to remember anything.
function remembered(name) {
  try {
    return localStorage.getItem(`s1_jax ${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`s1_jax ${name}`, value);
  } catch {
    // it lasts until the page is closed
  }
}

// What a screen reader says, and everyone reads below the message.
function say(text) {
  byId("status").textContent = text;
}

// Does something that makes an element's contents longer; who reads its end goes on reading its end.
function keepingEnd(scroller, change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 32;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

// Text that grows while it comes. It is appended once a frame, in blocks of whole lines, since a browser lays out a
// block anew at each change.
const LONGEST_BLOCK = 4096; // characters

const newBlock = (name) => el("span", { class: name }, document.createTextNode(""));

function growingText(node, change) {
  let waiting = "";
  let frame = 0;
  let block = newBlock("");
  const write = (text) => {
    if (!text) return;
    if (!block.isConnected) node.append(block);
    block.firstChild.appendData(text);
  };
  const flush = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    const text = waiting;
    waiting = "";
    if (!text) return;
    change(() => {
      const end = block.textContent.length + text.length > LONGEST_BLOCK ? text.lastIndexOf("\n") + 1 : 0;
      write(text.slice(0, end));
      if (end) block = newBlock("block"); // the first goes on in the line of what is there already
      write(text.slice(end));
    });
  };
  const append = (text) => {
    waiting += text;
    frame ||= requestAnimationFrame(flush);
  };
  return { append, flush };
}
