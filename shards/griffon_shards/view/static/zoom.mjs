// Zoom and pan of an image in a frame: by wheel, buttons, keys and dragging.

const LARGEST = 32;
const STEP = 1.25;
const PAN_PX = 80;
const DRAG_PX = 4;

export class Zoom {
  #width = 1;
  #height = 1;
  #scale = 1; // CSS pixels for each pixel of the image
  #centre = [0.5, 0.5]; // the place of the image, as fractions, in the middle of the frame
  #fitted = true;

  /**
   * @param {HTMLElement} frame
   * @param {HTMLElement} stage what is moved in it
   * @param {{moved: () => void, drawn: () => void}} on called after the user has moved it, and after each drawing
   */
  constructor(frame, stage, on) {
    Object.assign(this, { frame, stage, on });
    new ResizeObserver(() => this.#draw()).observe(frame);
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.#drag(event));
  }

  /** Begins with an image. `state` is what `this.state` was before, or empty to fit the image into the frame. */
  begin(width, height, state) {
    [this.#width, this.#height] = [width || 1, height || 1];
    const [scale, x, y] = (state ?? "").split(",").map(Number);
    this.#fitted = !(scale > 0 && Number.isFinite(x) && Number.isFinite(y));
    if (!this.#fitted) [this.#scale, this.#centre] = [scale, [x, y]];
    this.#draw();
  }

  /** Scale and centre as a text for the address; null while the image fits the frame. */
  get state() {
    return this.#fitted ? null : [this.#scale.toFixed(3), ...this.#centre.map((value) => value.toFixed(4))].join(",");
  }

  get percent() {
    return Math.round(this.#scale * 100);
  }

  get fitted() {
    return this.#fitted;
  }

  /** The scale at which the complete image is seen. */
  get #fit() {
    return Math.min(this.frame.clientWidth / this.#width, this.frame.clientHeight / this.#height, 8) || 1;
  }

  fit() {
    this.#fitted = true;
    this.#moved();
  }

  /** Shows the image at `scale`, with the place under (x, y), in pixels of the frame, where it was. */
  to(scale, x = this.frame.clientWidth / 2, y = this.frame.clientHeight / 2) {
    const [before, fit] = [this.#scale, this.#fit];
    this.#scale = Math.max(Math.min(fit, 1), Math.min(scale, Math.max(LARGEST, fit)));
    this.#fitted = Math.abs(this.#scale - fit) < 1e-6;
    const shift = 1 / before - 1 / this.#scale;
    this.#centre[0] += ((x - this.frame.clientWidth / 2) * shift) / this.#width;
    this.#centre[1] += ((y - this.frame.clientHeight / 2) * shift) / this.#height;
    this.#moved();
  }

  in() {
    this.to(this.#scale * STEP);
  }

  out() {
    this.to(this.#scale / STEP);
  }

  /** Moves what is seen by steps to the right and down. False if the image fits. */
  pan(right, down) {
    if (this.#fitted) return false;
    this.#shift(right * PAN_PX, down * PAN_PX);
    return true;
  }

  #shift(x, y) {
    this.#centre[0] += x / (this.#scale * this.#width);
    this.#centre[1] += y / (this.#scale * this.#height);
    this.#moved();
  }

  #wheel(event) {
    event.preventDefault();
    const frame = this.frame.getBoundingClientRect();
    const pixels = event.deltaMode ? event.deltaY * 20 : event.deltaY;
    this.to(this.#scale * Math.exp(-pixels * 0.002), event.clientX - frame.left, event.clientY - frame.top);
  }

  #drag(down) {
    if (down.button || this.#fitted) return;
    let [x, y, dragging] = [down.clientX, down.clientY, false];
    const move = (event) => {
      if (!dragging && Math.hypot(event.clientX - x, event.clientY - y) < DRAG_PX) return;
      if (!dragging) this.frame.setPointerCapture(down.pointerId);
      dragging = true;
      this.frame.classList.add("dragging");
      this.#shift(x - event.clientX, y - event.clientY);
      [x, y] = [event.clientX, event.clientY];
    };
    const end = () => {
      this.frame.classList.remove("dragging");
      this.frame.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) this.frame.removeEventListener(name, end);
    };
    this.frame.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) this.frame.addEventListener(name, end);
  }

  #moved() {
    this.#draw();
    this.on.moved();
  }

  #draw() {
    if (this.#fitted) [this.#scale, this.#centre] = [this.#fit, [0.5, 0.5]];
    const sides = [this.#width * this.#scale, this.#height * this.#scale];
    const frame = [this.frame.clientWidth, this.frame.clientHeight];
    const corner = [0, 1].map((axis) => {
      if (sides[axis] <= frame[axis]) this.#centre[axis] = 0.5;
      const half = frame[axis] / 2 / sides[axis];
      if (sides[axis] > frame[axis]) this.#centre[axis] = Math.max(half, Math.min(this.#centre[axis], 1 - half));
      return Math.round(frame[axis] / 2 - this.#centre[axis] * sides[axis]);
    });
    Object.assign(this.stage.style, {
      width: `${sides[0]}px`,
      height: `${sides[1]}px`,
      transform: `translate(${corner[0]}px, ${corner[1]}px)`,
    });
    this.frame.classList.toggle("zoomed", !this.#fitted);
    this.stage.classList.toggle("pixels", this.#scale >= 4);
    this.on.drawn();
  }
}
