// The page: asks for what it shows, every two seconds while somebody can see it.

import { Actions } from "./actions.js";
import { showFills, showInvalid, showJobs, showQueue } from "./activity.js";
import { Api, ApiError } from "./api.js";
import { askToken, wireDialogs } from "./dialogs.js";
import { announce, byId, setHidden, setText } from "./dom.js";
import { formatClock } from "./format.js";
import { ImageList } from "./images.js";
import { Overview, showRankings } from "./overview.js";

// Milliseconds.
const INTERVAL = 2000;
const LONGEST_INTERVAL = 15000;
const HISTORY_INTERVAL = 60000;
const LIST_INTERVAL = 10000;
const HOURS = 24;

class Page {
  #api = new Api(askToken);
  #overview = new Overview();
  #actions = new Actions(this.#api, (changesImages) => this.#refresh(changesImages));
  #images = new ImageList(this.#api, (id) => this.#actions.delete(id));
  #timer = 0;
  #failures = 0;
  #isPaused = false;
  #isLocked = false;
  #polling = null;
  #due = { history: 0, list: 0 };

  start() {
    wireDialogs();
    byId("pause").addEventListener("click", () => this.#pause(!this.#isPaused));
    byId("unlock").addEventListener("click", () => this.#unlock());
    byId("note-close").addEventListener("click", () => setHidden(byId("note"), true));
    document.addEventListener("visibilitychange", () => this.#wake());
    this.#poll();
  }

  /** Update at once, and then again at the usual time; a second call joins the first. */
  #poll() {
    clearTimeout(this.#timer);
    this.#polling ??= this.#update().finally(() => {
      this.#polling = null;
      this.#wait();
    });
    return this.#polling;
  }

  #wait() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#isPaused || this.#isLocked) return;
    const pause = Math.min(LONGEST_INTERVAL, INTERVAL * 2 ** this.#failures);
    this.#timer = setTimeout(() => this.#poll(), pause);
  }

  #wake() {
    if (document.hidden) clearTimeout(this.#timer);
    else if (!this.#isPaused && !this.#isLocked) this.#poll();
  }

  async #update() {
    try {
      const stats = await this.#api.stats();
      this.#show(stats);
      this.#recover(stats);
      await this.#updateRest();
    } catch (error) {
      this.#fail(error);
    }
  }

  #show(stats) {
    this.#overview.show(stats);
    showFills(stats);
    showJobs(stats);
    showQueue(stats, { retry: (id) => this.#actions.retry(id), remove: (id) => this.#actions.unqueue(id) });
    showInvalid(stats);
    showRankings(stats);
    this.#images.now = stats.time;
    document.body.classList.add("loaded");
  }

  /** What changes more slowly, or costs the server more. */
  async #updateRest() {
    if (performance.now() >= this.#due.history) {
      this.#overview.showHistory(await this.#api.history(HOURS));
      this.#due.history = performance.now() + HISTORY_INTERVAL;
    }
    if (performance.now() >= this.#due.list) {
      await this.#images.load();
      this.#due.list = performance.now() + LIST_INTERVAL;
    }
  }

  async #refresh(changesImages) {
    if (changesImages) await this.#images.load();
    await this.#polling;
    await this.#poll();
  }

  #recover(stats) {
    if (this.#failures > 0) announce("Connected again.");
    this.#failures = 0;
    this.#isLocked = false;
    setHidden(byId("trouble"), true);
    setText(byId("updated"), `Updated ${formatClock(stats.time, true)}`);
    byId("updated").dateTime = new Date(stats.time * 1000).toISOString();
  }

  #fail(error) {
    // Not the network's trouble but ours, or an answer of another shape.
    if (!(error instanceof ApiError)) console.error(error);
    this.#isLocked = error.status === 401;
    setHidden(byId("unlock"), !this.#isLocked);
    setText(byId("trouble-text"), this.#isLocked
      ? "A token is needed to see this cache."
      : `${error.message} What is shown may be out of date; trying again.`);
    setHidden(byId("trouble"), false);
    // Once for each time that it is lost.
    if (this.#failures === 0) announce(error.message);
    this.#failures += 1;
  }

  #unlock() {
    this.#failures = 0;
    this.#poll();
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    setText(byId("pause"), isPaused ? "Resume" : "Pause");
    announce(isPaused ? "Updates are paused." : "Updates go on.");
    if (isPaused) clearTimeout(this.#timer);
    else this.#poll();
  }
}

new Page().start();
