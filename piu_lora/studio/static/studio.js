// What needs no answer from the studio: sliders, the filter of a wall, what is pressed, photographs to send.
(() => {
  document.documentElement.lang = "en";

  document.addEventListener("input", (event) => {
    const target = event.target;
    if (target.matches(".compare input[type=range]")) {
      target.closest(".compare").style.setProperty("--cut", target.value + "%");
    } else if (target.matches("[data-filter]")) {
      fill(document.getElementById(target.dataset.filter), target.value.trim().toLowerCase());
    }
  });

  // A wall shows so many people at once: the first ones, or those whose ids hold the words.
  function fill(wall, words) {
    const ids = wall.dataset.ids.split("\n");
    const found = [...ids.keys()].filter((row) => ids[row].toLowerCase().includes(words));
    const shown = found.slice(0, Number(wall.dataset.shown));
    wall.replaceChildren(...shown.map((row) => {
      const tile = document.createElement("button");
      tile.type = "button";
      tile.className = "tile";
      tile.dataset.person = ids[row];
      tile.setAttribute("aria-pressed", "false");
      const face = new Image(72, 72);
      face.loading = "lazy";
      face.alt = "";
      face.src = "studio/face/" + row + ".webp";
      const name = document.createElement("span");
      name.textContent = ids[row];
      tile.append(face, name);
      return tile;
    }));
    wall.parentElement.querySelector(".many").textContent =
      found.length === 0 ? "nobody of the bank has such an id" : shown.length + " of " + found.length + " people";
  }

  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile[data-person]");
    if (!tile) return;
    for (const other of tile.parentElement.querySelectorAll("[aria-pressed=true]"))
      other.setAttribute("aria-pressed", "false");
    tile.setAttribute("aria-pressed", "true");
  });

  // What was asked for comes into view on a narrow page, where it stands below the form.
  document.addEventListener("click", (event) => {
    const asked = event.target.closest("button[id], [id$='-result'] [data-person], [id$='-result'] [data-point]");
    const part = asked && (asked.id ? asked : asked.closest("[id$='-result']"));
    const page = part && /^(forget|explore|stack|evidence|arena|requests)-(?!cancel)/.exec(part.id);
    if (!page) return;
    const progress = document.getElementById(page[1] + "-progress");
    setTimeout(() => progress && progress.scrollIntoView({ block: "nearest" }), 600);
  });

  // A map's points say who they are, by pointer and by keyboard.
  const tell = (event) => {
    const spot = event.target.closest && event.target.closest(".spot[data-words]");
    if (spot)
      spot.closest("figure").querySelector(".spot-words").textContent =
        spot.dataset.point + ": " + spot.dataset.words;
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
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    const point = event.target.closest && event.target.closest("svg [role=button]");
    if (!point) return;
    event.preventDefault();
    point.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });

  function refuse(box, reasons) {
    box.querySelector(".refused").replaceChildren(...reasons.map((words) => {
      const line = document.createElement("li");
      line.textContent = words;
      return line;
    }));
  }
  async function ask(box, options, reasons = []) {
    const status = box.querySelector("[role=status]");
    try {
      const answer = await fetch("studio/photographs", options);
      if (!answer.ok) {
        status.textContent = await answer.text();
        return;
      }
      const told = await answer.json();
      status.textContent = told.words;
      refuse(box, [...reasons, ...told.refused]);
    } catch (error) {
      status.textContent = "The photographs did not arrive; is the studio still running?";
    }
  }
  function send(box, files) {
    const form = new FormData(), largest = Number(box.dataset.largest), reasons = [];
    for (const file of files) {
      if (file.size > largest) reasons.push(file.name + ": larger than " + largest / 1e6 + " MB");
      else form.append("photographs", file);
    }
    refuse(box, reasons);
    const count = files.length - reasons.length;
    box.querySelector("[role=status]").textContent = count ? "sending " + count : "";
    return count ? ask(box, { method: "POST", body: form }, reasons) : null;
  }
  document.addEventListener("click", (event) => {
    if (event.target.matches("[data-remove]")) ask(document.querySelector(".drop"), { method: "DELETE" });
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches(".drop input[type=file]") && event.target.files.length) {
      send(event.target.closest(".drop"), event.target.files);
      event.target.value = "";
    }
  });
  for (const kind of ["dragover", "dragleave", "drop"])
    document.addEventListener(kind, (event) => {
      const box = event.target.closest && event.target.closest(".drop");
      if (!box) return;
      event.preventDefault();
      box.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) send(box, event.dataTransfer.files);
    });
})();
