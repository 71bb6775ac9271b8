// Draws the requests of one side over time: a lane for each thread, and below them the queue.
//
// Time runs from left to right and the present stays where it is. Each request is a group of
// shapes at its place in time, and all of them lie in one group that is moved; so only what
// is still going on is drawn anew.

const PAST = 16; // seconds
const AHEAD = 2.6; // room for the deadlines to come
const LANE = 26;
const GAP = 4;
const QUEUE_TOP = 12;
const QUEUE_ROWS = 24;
const QUEUE_ROW = 5;
const NOTICEABLE = 0.08; // seconds: a shorter wait is not drawn

function shape(name, parent, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function place(rect, x, y, width, height) {
  rect.setAttribute("x", x);
  rect.setAttribute("y", y);
  rect.setAttribute("width", Math.max(width, 0));
  rect.setAttribute("height", height);
}

export class Timeline {
  constructor(svg, open) {
    this.svg = svg;
    this.open = open;
    this.background = shape("g", svg);
    this.moving = shape("g", svg);
    this.present = shape("path", svg, { class: "present" });
    this.drawn = new Map();
    new ResizeObserver(() => this.measure()).observe(svg);
  }

  reset(threads, now) {
    this.threads = threads;
    this.epoch = now;
    this.drawn.clear();
    this.moving.replaceChildren();
    this.lanesBottom = threads * (LANE + GAP);
    this.height = this.lanesBottom + QUEUE_TOP + QUEUE_ROWS * QUEUE_ROW;
    this.svg.setAttribute("height", this.height);
    this.background.replaceChildren();
    for (let lane = 0; lane < threads; lane++) {
      shape("rect", this.background, { class: "lane", y: lane * (LANE + GAP), width: "100%", height: LANE, rx: 4 });
    }
    this.measure();
  }

  measure() {
    if (!this.threads) return; // not yet begun
    this.width = this.svg.clientWidth;
    this.second = this.width / (PAST + AHEAD);
    this.presentX = PAST * this.second;
    this.present.setAttribute("d", `M${this.presentX} 0V${this.height}`);
    for (const each of this.drawn.values()) each.isSettled = false;
  }

  set(trip) {
    let each = this.drawn.get(trip.number);
    if (!each) {
      each = { slot: null, group: shape("g", this.moving, { class: "trip" }) };
      each.group.addEventListener("click", () => this.open(each.trip.number));
      this.drawn.set(trip.number, each);
    }
    each.trip = trip;
    each.isSettled = false;
  }

  // True while there is anything to be seen.
  draw(now) {
    this.moving.setAttribute("transform", `translate(${this.presentX - this.x(now)} 0)`);
    for (const [number, each] of this.drawn) {
      if (!each.isSettled) this.drawTrip(each, now);
      if (each.until < now - PAST - 1) {
        each.group.remove();
        this.drawn.delete(number);
      }
    }
    return this.drawn.size > 0;
  }

  x(instant) {
    return (instant - this.epoch) * this.second;
  }

  drawTrip(each, now) {
    const { trip, group } = each;
    const left = trip.begun ?? trip.answered ?? now; // the queue
    each.until = trip.begun === null ? left : (trip.ended ?? now);
    each.isSettled = trip.ending !== null && (trip.begun === null || trip.ended !== null);
    group.replaceChildren();
    group.dataset.ending = trip.ending ?? "running";
    const hasNoLane = trip.begun === null && trip.ending !== null;
    if (left - trip.sent + trip.queued > NOTICEABLE || hasNoLane) this.drawWait(each, left, hasNoLane);
    if (trip.begun !== null) this.drawRun(each, now);
    shape("title", group).textContent = `Request ${trip.number}, ${trip.kind}: ${trip.ending ?? "under way"}`;
  }

  drawWait(each, left, isItsEnd) {
    const { trip, group } = each;
    each.slot ??= this.freeSlot(trip.sent - trip.queued, trip.number);
    const y = this.lanesBottom + QUEUE_TOP + each.slot * QUEUE_ROW;
    const from = this.x(Math.max(trip.sent - trip.queued, trip.sent - PAST - 2));
    each.busyUntil = trip.begun === null && trip.ending === null ? Infinity : left + 0.6;
    place(shape("rect", group, { class: "wait", rx: 2 }), from, y, this.x(left) - from, QUEUE_ROW - 2);
    if (isItsEnd) {
      const mark = shape("g", group, { class: "mark", transform: `translate(${this.x(left) - 5} ${y - 3.5})` });
      shape("circle", mark, { cx: 5, cy: 5, r: 5 });
      shape("use", mark, { href: `#i-${trip.ending}`, x: 2, y: 2, width: 6, height: 6 });
    }
  }

  drawRun({ trip, group }, now) {
    const y = (trip.worker % this.threads) * (LANE + GAP);
    const from = this.x(trip.begun);
    const to = this.x(trip.ended ?? now);
    const gone = trip.answered !== null ? Math.min(this.x(trip.answered), to) : to;
    const isForNobody = to - gone > 4;
    place(shape("rect", group, { class: "run", rx: 3 }), from, y, Math.max(gone - from, 3), LANE);
    if (isForNobody) place(shape("rect", group, { class: "nobody" }), gone, y, to - gone, LANE);
    // Of those that ended well before it, it would tell nothing.
    if (trip.limit !== null && (trip.ended === null || trip.ended > trip.begun + trip.limit - 0.1)) {
      const at = this.x(trip.begun + trip.limit);
      shape("path", group, { class: "deadline", d: `M${at} ${y - 2}V${y + LANE + 2}` });
    }
    this.drawEnding(trip, group, from, gone, y);
  }

  drawEnding(trip, group, from, to, y) {
    const width = to - from;
    if (trip.ending === null || width < 12) return;
    const x = width < 18 ? from + width / 2 - 5 : to - 15;
    shape("use", group, { class: "end", href: `#i-${trip.ending}`, x, y: y + 8, width: 10, height: 10 });
    const text = { stopped: "504", "given-up": "H12", dropped: "503" }[trip.ending];
    if (text && width > 42) shape("text", group, { class: "end", x: to - 18, y: y + 17 }).textContent = text;
  }

  // The first row that nobody is drawn in at that time.
  freeSlot(from, number) {
    const taken = new Set();
    for (const each of this.drawn.values()) {
      if (each.slot !== null && each.trip.number !== number && each.busyUntil > from) taken.add(each.slot);
    }
    for (let slot = 0; slot < QUEUE_ROWS; slot++) if (!taken.has(slot)) return slot;
    return number % QUEUE_ROWS;
  }
}
