// Boxes and their texts light up together, whichever of them is hovered or focused.

/** Keeps elements with `data-link` inside a node connected: those that share a word of it light up together. */
export class Links {
  #byWord = new Map();
  #lit = [];
  #pinned = "";

  /** @param {Element} root @param {(words: string) => void} onPin called when an element is clicked or unpinned. */
  constructor(root, onPin) {
    const show = (event) => this.#light(event.target.closest?.("[data-link]"), event.target);
    root.addEventListener("pointerover", show);
    root.addEventListener("focusin", show);
    root.addEventListener("pointerleave", () => this.#light(null, null));
    root.addEventListener("focusout", () => this.#light(null, null));
    root.addEventListener("click", (event) => this.#press(event.target.closest?.("[data-link]"), onPin));
    root.addEventListener("keydown", (event) => {
      const node = event.target.closest?.("[data-link]");
      if (node && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        event.stopPropagation();
        this.#press(node, onPin);
      }
    });
    this.root = root;
  }

  /** Reads the elements that the root holds now. */
  update(pinned = "") {
    this.#byWord.clear();
    for (const node of this.root.querySelectorAll("[data-link]")) {
      for (const word of node.dataset.link.split(" ")) {
        if (!this.#byWord.has(word)) this.#byWord.set(word, []);
        this.#byWord.get(word).push(node);
      }
    }
    this.#lit = [];
    this.#pinned = pinned;
    this.#light(null, null);
  }

  get pinned() {
    return this.#pinned;
  }

  #press(node, onPin) {
    if (!node) return;
    this.#pinned = this.#pinned === node.dataset.link ? "" : node.dataset.link;
    this.#light(node, node);
    onPin(this.#pinned);
  }

  #light(node, target) {
    for (const lit of this.#lit) lit.classList.remove("lit");
    const words = new Set(`${this.#pinned} ${node?.dataset.link ?? ""}`.split(" "));
    this.#lit = [...words].flatMap((word) => this.#byWord.get(word) ?? []);
    for (const lit of this.#lit) lit.classList.add("lit");
    this.root.classList.toggle("some-lit", this.#lit.length > 0);
    if (node) for (const lit of this.#lit) if (!lit.contains(target)) scrollInside(lit);
  }
}

/** Scrolls the box of text around a node, and not the page, until the node can be seen. */
function scrollInside(node) {
  const around = node.closest(".text");
  if (!around || around.scrollHeight <= around.clientHeight) return;
  const [own, outer] = [node.getBoundingClientRect(), around.getBoundingClientRect()];
  if (own.top < outer.top || own.bottom > outer.bottom) around.scrollTop += own.top - outer.top - 24;
}

/** Makes the elements of a container one stop of the tab key, between which arrow keys, Home and End move. */
export function linkedGroup(container, selector) {
  const nodes = () => [...container.querySelectorAll(selector)];
  container.addEventListener("keydown", (event) => {
    const all = nodes();
    const place = all.indexOf(document.activeElement);
    const next = {
      ArrowRight: place + 1,
      ArrowDown: place + 1,
      ArrowLeft: place - 1,
      ArrowUp: place - 1,
      Home: 0,
      End: all.length - 1,
    }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const node = all[Math.max(0, Math.min(next, all.length - 1))];
    all[place].setAttribute("tabindex", "-1");
    node.setAttribute("tabindex", "0");
    node.focus();
  });
  nodes()[0]?.setAttribute("tabindex", "0");
}
