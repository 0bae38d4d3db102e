// The list of all images: searched, sorted and paged by the server.

import { addCell, byId, keepRows, make, setAge, setAttribute, setHidden, setId, setText } from "./dom.js";
import { formatBytes, formatCount, shortenId } from "./format.js";

const PAGE = 50;
// Milliseconds without another key before a search is sent.
const TYPING_PAUSE = 250;

export class ImageList {
  // The server's time, as it said last.
  now = Date.now() / 1000;

  #api;
  #onDelete;
  #search = "";
  #sort = "last_accessed";
  #isDescending = true;
  // The last images of the pages before this one; null is before the first page.
  #before = [null];
  #images = [];
  #asked = 0;
  #typing = 0;

  /** @param onDelete is given the id of an image that is to be deleted. */
  constructor(api, onDelete) {
    this.#api = api;
    this.#onDelete = onDelete;
    for (const button of document.querySelectorAll("#images-table button[data-sort]")) {
      button.addEventListener("click", () => this.#sortBy(button.dataset.sort));
    }
    byId("search").addEventListener("input", () => this.#type());
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#type(0);
    });
    byId("previous").addEventListener("click", () => this.#turn(() => this.#before.pop()));
    byId("next").addEventListener("click", () => this.#turn(() => this.#before.push(this.#images.at(-1))));
  }

  /** Ask for the page that is shown; an answer that another question overtook is dropped. */
  async load() {
    this.#asked += 1;
    const asked = this.#asked;
    byId("images-table").setAttribute("aria-busy", "true");
    try {
      const answer = await this.#api.list({
        search: this.#search,
        sort: this.#sort,
        isDescending: this.#isDescending,
        limit: PAGE,
        last: this.#before.at(-1),
      });
      if (asked !== this.#asked) return;
      if (answer.images.length === 0 && this.#before.length > 1) {
        this.#before.pop(); // the last of the page was deleted
        await this.load();
        return;
      }
      this.#show(answer);
      setHidden(byId("images-error"), true);
    } catch (error) {
      if (asked !== this.#asked) return;
      setText(byId("images-error"), `The list could not be loaded: ${error.message}`);
      setHidden(byId("images-error"), false);
    } finally {
      if (asked === this.#asked) byId("images-table").setAttribute("aria-busy", "false");
    }
  }

  #type(pause = TYPING_PAUSE) {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => {
      this.#search = byId("search").value.trim();
      this.#before = [null];
      this.load();
    }, pause);
  }

  #sortBy(name) {
    this.#isDescending = this.#sort === name ? !this.#isDescending : name !== "image_id";
    this.#sort = name;
    this.#before = [null];
    this.load();
  }

  async #turn(move) {
    move();
    await this.load();
    // A button that was pressed and is now disabled would keep the focus and say nothing.
    if (document.activeElement === document.body || document.activeElement.disabled) byId("images-title").focus();
  }

  #show({ images, total, hasMore }) {
    const focused = this.#focusedRow();
    this.#images = images;
    keepRows(byId("images"), images, (image) => image.image_id, (image) => this.#makeRow(image),
      (row, image) => fillRow(row, image, this.now));
    this.#restoreFocus(focused);
    const before = (this.#before.length - 1) * PAGE;
    const of = ` of ${formatCount(total)}`;
    setText(byId("page"), images.length ? `${formatCount(before + 1)} to ${formatCount(before + images.length)}${of}` : "");
    setText(byId("images-empty"), this.#search ? "No image has this in its id." : "Nothing is cached yet.");
    setHidden(byId("images-empty"), images.length > 0);
    setHidden(byId("images-table"), images.length === 0);
    byId("previous").disabled = this.#before.length === 1;
    byId("next").disabled = !hasMore;
    for (const head of document.querySelectorAll("#images-table th[data-column]")) {
      const isSorted = head.dataset.column === this.#sort;
      setAttribute(head, "aria-sort", isSorted ? (this.#isDescending ? "descending" : "ascending") : null);
    }
  }

  #makeRow(image) {
    const row = make("tr");
    const cell = addCell(row, "idCell", { scope: "row" }, "th");
    row.name = make("span", { class: "id", dir: "auto" });
    cell.append(row.name);
    addCell(row, "size", { class: "number" });
    addCell(row, "hits", { class: "number" });
    addCell(row, "accessed", { class: "number wide" });
    addCell(row, "modified", { class: "number wide" });
    const label = `Delete ${shortenId(image.image_id)}`;
    const button = make("button", { type: "button", "aria-label": label, click: () => this.#onDelete(image.image_id) }, "Delete");
    addCell(row, "actions", { class: "actions" }).append(button);
    return row;
  }

  #focusedRow() {
    const row = document.activeElement.closest?.("#images > tr");
    return row ? [...byId("images").children].indexOf(row) : -1;
  }

  /** Where the focused row went away, go on with the one in its place. */
  #restoreFocus(index) {
    if (index < 0 || document.activeElement !== document.body) return;
    const rows = byId("images").children;
    const row = rows[Math.min(index, rows.length - 1)];
    (row?.querySelector("button") ?? byId("images-title")).focus();
  }
}

function fillRow(row, image, now) {
  setId(row.name, image.image_id);
  setText(row.size, formatBytes(image.size));
  setText(row.hits, formatCount(image.hits));
  setAge(row.accessed, image.last_accessed, now);
  setAge(row.modified, image.last_modified, now);
}
