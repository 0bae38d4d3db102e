// Questions to the person: whether to go on, and the token.

import { byId, setHidden, setText } from "./dom.js";

function once(dialog) {
  return new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
}

/**
 * Ask whether to do something. The focus goes back to where it was, if that is
 * still there.
 *
 * @param option a thing to be chosen with it, by its label.
 * @return null for no, else `{ isChosen }`.
 */
export async function confirm({ title, text, subject = "", option = "", verb, isDangerous = false }) {
  const dialog = byId("confirm");
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
  await once(dialog);
  return dialog.returnValue === "do" ? { isChosen: byId("confirm-choice").checked } : null;
}

/**
 * Ask for the token of the management API.
 *
 * @param isRefused whether one was given already.
 * @return null if none is given.
 */
export async function askToken(isRefused) {
  const dialog = byId("token");
  const field = byId("token-field");
  setHidden(byId("token-refused"), !isRefused);
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await once(dialog);
  // Nothing else fits into a header field.
  const token = field.value.replace(/[^\x21-\x7e]/g, "");
  field.value = "";
  return dialog.returnValue === "do" && token !== "" ? token : null;
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
