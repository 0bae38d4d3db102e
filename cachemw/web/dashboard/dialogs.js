// Questions to the person: whether to go on, and the token.

import { byId, setHidden, setText } from "./dom.js";

// What each dialog was last asked for.
const asked = new WeakMap();

/**
 * Open a dialog, and give what `read` finds when it was closed by its main button, else null.
 *
 * A dialog says that it was closed some time after it was: a question that is asked
 * meanwhile waits, or it would be given the answer to the one before.
 */
function ask(dialog, prepare, read) {
  const before = asked.get(dialog);
  const answer = (async () => {
    await before;
    prepare();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "do" ? read() : null;
  })();
  asked.set(dialog, answer);
  return answer;
}

/**
 * Ask whether to do something. The focus goes back to where it was, if that is
 * still there.
 *
 * @param option a thing to be chosen with it, by its label.
 * @return null for no, else `{ isChosen }`.
 */
export function confirm(question) {
  const dialog = byId("confirm");
  return ask(dialog, () => showQuestion(dialog, question), () => ({ isChosen: byId("confirm-choice").checked }));
}

function showQuestion(dialog, { title, text, subject = "", option = "", verb, isDangerous = false }) {
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-subject"), subject);
  setHidden(byId("confirm-subject"), subject === "");
  setText(byId("confirm-option-label"), option);
  setHidden(byId("confirm-option"), option === "");
  byId("confirm-choice").checked = false;
  const button = byId("confirm-do");
  setText(button, verb);
  button.classList.toggle("dangerous", isDangerous);
  dialog.returnValue = "";
  dialog.showModal();
  // What cannot be undone is not one press of Enter away.
  (isDangerous ? byId("confirm-cancel") : button).focus();
}

/**
 * Ask for the token of the management API.
 *
 * @param isRefused whether one was given already.
 * @return null if none is given.
 */
export function askToken(isRefused) {
  const dialog = byId("token");
  const field = byId("token-field");
  const show = () => {
    setHidden(byId("token-refused"), !isRefused);
    field.value = "";
    dialog.returnValue = "";
    dialog.showModal();
  };
  const read = () => {
    // Nothing else fits into a header field.
    const token = field.value.replace(/[^\x21-\x7e]/g, "");
    field.value = "";
    return token || null;
  };
  return ask(dialog, show, read);
}

/** Forms in dialogs close them with their button's value: form-action 'none' forbids sending. */
export function wireDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close(event.submitter?.value ?? "do");
    });
    // The first submit button is what Enter presses: cancelling must not be it.
    for (const button of dialog.querySelectorAll("button[data-close]")) {
      button.addEventListener("click", () => dialog.close(""));
    }
  }
}
