// The management API, by paths relative to the page.

/** An answer that is not what was asked for, or none at all (status 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Milliseconds; a cache that says nothing for longer is out of reach.
const TIMEOUT = 10000;

async function explain(response) {
  try {
    const { error } = await response.json();
    return error.detail || error.title;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

/** An id in a URL. What was no UTF-8 in it stands as lone surrogates, as in Python. */
function quoteId(id) {
  return Array.from(id, (character) => {
    const code = character.codePointAt(0);
    return code >= 0xdc80 && code <= 0xdcff ? `%${(code - 0xdc00).toString(16)}` : encodeURIComponent(character);
  }).join("");
}

/** The path of one image below a collection. */
function imagePath(collection, id) {
  // A URL cannot hold these as the last part of a path: the request would reach the
  // collection itself, and delete all of it.
  if (id === "." || id === "..") throw new ApiError(0, `No URL can name the image “${id}”; use the command line.`);
  try {
    return `${collection}/${quoteId(id)}`;
  } catch {
    throw new ApiError(0, "No URL can name this image; use the command line.");
  }
}

export class Api {
  #askToken;
  #token = null;
  #tokenKey = `cachemw-token ${location.pathname}`;
  #asking = null;
  #root = null;

  /** @param askToken asks the person for a token; false: they will not give one. */
  constructor(askToken) {
    this.#askToken = askToken;
    try {
      this.#token = sessionStorage.getItem(this.#tokenKey);
    } catch {
      // Then it is asked for on each visit.
    }
  }

  stats() {
    return this.#json("GET", "stats");
  }

  history(hours) {
    return this.#json("GET", `stats/history?hours=${hours}`);
  }

  /**
   * One page of images.
   *
   * @param last the image before the page; null for the first page. Its place is found by
   *     what it was sorted by then, also if it was read or deleted since.
   */
  async list({ search, sort, isDescending, limit, last }) {
    let query = `limit=${limit}&sort=${sort}:${isDescending ? "desc" : "asc"}`;
    if (search) query += `&search=${encodeURIComponent(search)}`;
    if (last !== null) query += `&marker=${quoteId(last.image_id)}`;
    if (last !== null && sort !== "image_id") query += `&marker_value=${last[sort]}`;
    const answer = await this.#json("GET", `${await this.#findRoot()}v1/cached_images?${query}`);
    return { images: answer.cached_images, total: answer.total, hasMore: Boolean(answer.next) };
  }

  async deleteImage(id) {
    await this.#send("DELETE", (await this.#findRoot()) + imagePath("v1/cached_images", id));
  }

  async queueImage(id) {
    await this.#send("PUT", (await this.#findRoot()) + imagePath("v1/queued_images", id));
  }

  async unqueueImage(id) {
    await this.#send("DELETE", (await this.#findRoot()) + imagePath("v1/queued_images", id));
  }

  /** Start a job of a kind (prune, clean, check). */
  async start(kind, options) {
    return this.#json("POST", `${await this.#findRoot()}v2/cache/${kind}`, options);
  }

  /** Where /v1 and /v2 begin: beside the page, or one up where a filter serves it under /.cachemw/. */
  async #findRoot() {
    if (this.#root === null) {
      const isBelow = location.pathname.endsWith("/.cachemw/");
      this.#root = isBelow && !(await this.#hasImages("")) ? "../" : "";
    }
    return this.#root;
  }

  async #hasImages(root) {
    try {
      return "cached_images" in (await this.#json("GET", `${root}v1/cached_images?limit=1`));
    } catch (error) {
      // Out of reach, refused or in trouble is not the same as not there.
      if (error.status === 0 || error.status === 401 || error.status >= 500) throw error;
      return false;
    }
  }

  async #json(method, path, body) {
    const response = await this.#send(method, path, body);
    try {
      return await response.json();
    } catch {
      throw new ApiError(response.status, "The answer was not JSON.");
    }
  }

  async #send(method, path, body) {
    const sent = this.#token;
    const response = await this.#fetch(method, path, body, sent);
    if (response.status === 401) {
      if (await this.#getToken(sent)) return this.#send(method, path, body);
      throw new ApiError(401, "A token is needed.");
    }
    if (!response.ok) throw new ApiError(response.status, await explain(response));
    return response;
  }

  async #fetch(method, path, body, token) {
    const headers = { Accept: "application/json" };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    try {
      return await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(TIMEOUT),
      });
    } catch {
      throw new ApiError(0, "The cache cannot be reached.");
    }
  }

  /** Have another token than the one refused; several requests ask for it once. */
  async #getToken(refused) {
    if (this.#token !== refused) return true;
    this.#asking ??= this.#askToken(refused !== null).finally(() => {
      this.#asking = null;
    });
    const token = await this.#asking;
    if (token === null) return false;
    this.#token = token;
    try {
      sessionStorage.setItem(this.#tokenKey, token);
    } catch {
      // It holds for this page only.
    }
    return true;
  }
}
