// What needs no answer from the studio: sliders, the filter of a wall, what is pressed, photographs to send.
(() => {
  document.documentElement.lang = "en";

  document.addEventListener("input", (event) => {
    const target = event.target;
    if (target.matches(".compare input[type=range]")) {
      target.closest(".compare").style.setProperty("--cut", target.value + "%");
    } else if (target.matches("[data-filter]")) {
      const words = target.value.trim().toLowerCase();
      const wall = document.getElementById(target.dataset.filter);
      for (const tile of wall.querySelectorAll(".tile"))
        tile.hidden = words !== "" && !tile.dataset.person.toLowerCase().includes(words);
    }
  });

  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile[data-person]");
    if (!tile) return;
    for (const other of tile.parentElement.querySelectorAll("[aria-pressed=true]"))
      other.setAttribute("aria-pressed", "false");
    tile.setAttribute("aria-pressed", "true");
  });

  // A map's points say who they are, by pointer and by keyboard.
  const tell = (event) => {
    const point = event.target.closest && event.target.closest("[data-row]");
    if (!point) return;
    const card = point.closest(".map").querySelector(".who-card");
    card.querySelector("img").src = "studio/face/" + point.dataset.row + ".webp";
    card.querySelector("b").textContent = point.dataset.person;
    card.querySelector("span").textContent = "changed by " + point.dataset.change;
    card.hidden = false;
  };
  document.addEventListener("pointerover", tell);
  document.addEventListener("focusin", tell);

  async function send(box, files) {
    const status = box.querySelector("[role=status]");
    const form = new FormData();
    for (const file of files) form.append("photographs", file);
    status.textContent = "Sending " + files.length + (files.length === 1 ? " file…" : " files…");
    try {
      const answer = await fetch("studio/photographs", { method: "POST", body: form });
      const told = await answer.json();
      status.textContent = told.words;
      const list = box.querySelector(".refused");
      list.replaceChildren(...told.refused.map((words) => {
        const line = document.createElement("li");
        line.textContent = words;
        return line;
      }));
      box.querySelector(".kept").textContent = told.kept ? told.kept + (told.kept === 1 ? " photograph" : " photographs") : "";
      box.dispatchEvent(new CustomEvent("photographs", { bubbles: true, detail: told }));
    } catch (error) {
      status.textContent = "The photographs did not arrive; is the studio still running?";
    }
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches(".drop input[type=file]") && event.target.files.length) {
      send(event.target.closest(".drop"), event.target.files);
      event.target.value = "";
    }
  });
  for (const kind of ["dragover", "drop"])
    document.addEventListener(kind, (event) => {
      const box = event.target.closest && event.target.closest(".drop");
      if (!box) return;
      event.preventDefault();
      if (kind === "drop" && event.dataTransfer.files.length) send(box, event.dataTransfer.files);
    });
})();
