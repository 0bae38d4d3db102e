// What a person can do: each asks first, and says how it ended.

import { confirm } from "./dialogs.js";
import { byId, notify } from "./dom.js";
import { formatId, shortenId } from "./format.js";

const JOBS = {
  prune: {
    title: "Prune the cache?",
    text: "Removes the images that the eviction policy gives up first, until the cache fits its bounds. Downloads under way are not harmed.",
    verb: "Prune",
  },
  clean: {
    title: "Clean the cache?",
    text: "Removes what failed, with its reasons, and what was abandoned. Images are not touched.",
    verb: "Clean",
  },
  check: {
    title: "Check the cache?",
    text: "Reads every image again and compares it with its checksum, and the index with the directory. This takes a while.",
    option: "Repair what is found",
    verb: "Check",
  },
};

export class Actions {
  #api;
  #refresh;

  /** @param refresh shows what changed: given whether the list of images did. */
  constructor(api, refresh) {
    this.#api = api;
    this.#refresh = refresh;
    for (const kind of Object.keys(JOBS)) byId(`${kind}-button`).addEventListener("click", () => this.start(kind));
    byId("queue-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.queue(byId("queue-field").value);
    });
  }

  async start(kind) {
    const answer = await confirm(JOBS[kind]);
    if (answer === null) return;
    const options = JOBS[kind].option ? { repair: answer.isChosen } : {};
    const sayState = (job) => `${JOBS[kind].verb}: ${job.state === "running" ? "started" : job.state}`;
    await this.#try(sayState, () => this.#api.start(kind, options), kind !== "clean");
  }

  async delete(id) {
    const answer = await confirm({
      title: "Delete this image?",
      text: "It is fetched from the app again when somebody asks for it. Downloads under way are not harmed.",
      subject: formatId(id),
      verb: "Delete",
      isDangerous: true,
    });
    if (answer === null) return;
    await this.#try(`Deleted ${shortenId(id)}`, () => this.#api.deleteImage(id), true);
  }

  async queue(id) {
    if (id.trim() === "") {
      byId("queue-field").focus();
      return;
    }
    const isDone = await this.#try(`Queued ${shortenId(id)}`, () => this.#api.queueImage(id), false);
    if (isDone) byId("queue-field").value = "";
  }

  retry(id) {
    return this.#try(`${shortenId(id)} will be tried again`, () => this.#api.queueImage(id), false);
  }

  async unqueue(id) {
    const answer = await confirm({
      title: "Remove this from the queue?",
      text: "It is not fetched ahead of a request.",
      subject: formatId(id),
      verb: "Remove",
    });
    if (answer === null) return;
    await this.#try(`Removed ${shortenId(id)} from the queue`, () => this.#api.unqueueImage(id), false);
    if (document.activeElement === document.body) byId("queue-title").focus();
  }

  async #try(done, action, changesImages) {
    try {
      const answer = await action();
      notify(typeof done === "function" ? done(answer) : done);
      return true;
    } catch (error) {
      notify(`Not done: ${error.message}`, true);
      return false;
    } finally {
      await this.#refresh(changesImages);
    }
  }
}
