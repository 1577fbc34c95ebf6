// Shows the row of weights that belongs to the chosen word or region.
"use strict";
const data = JSON.parse(document.getElementById("weights").textContent);
const form = document.getElementById("looks");
const regions = [...form.querySelectorAll(".region")];
const words = [...form.querySelectorAll(".word")];
const percent = (x) => `${(100 * x).toFixed(1)}%`;

regions.forEach((region, i) => {
  if (!data.boxes) return;
  const [x, y, width, height] = data.boxes[i].map((share) => `${100 * share}%`);
  // of boxes that overlap, the smallest can be reached
  const zIndex = Math.round(1000 * (1 - data.boxes[i][2] * data.boxes[i][3]));
  Object.assign(region.style, { left: x, top: y, width, height, zIndex });
});

function show() {
  const [kind, number] = form.elements.look.value.split(" ");
  const asksWord = kind === "word";
  const weights = data[asksWord ? "wordsToRegions" : "regionsToWords"][number];
  const most = Math.max(...weights);
  for (const item of [...regions, ...words]) item.style.setProperty("--heat", 0);
  (asksWord ? regions : words).forEach((item, i) => {
    item.style.setProperty("--heat", (weights[i] / most).toFixed(3));
    item.title = percent(weights[i]);
  });
  const name = (i, word) => (word ? `“${data.words[i]}”` : `region ${Number(i) + 1}`);
  const best = weights.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const told = best.map(([w, i]) => `${name(i, !asksWord)} (${percent(w)})`).join(", ");
  document.getElementById("told").textContent =
    `${name(number, asksWord)} looks most at ${told}; an even share is ${percent(1 / weights.length)}.`;
}

// to begin with, the word that looks most at a region that looks back: "the" may look at the sky alone
const mutual = (row, word) => Math.max(...row.map((w, i) => w * data.regionsToWords[i][word]));
const peaks = data.wordsToRegions.map(mutual);
words[peaks.indexOf(Math.max(...peaks))].querySelector("input").checked = true;
form.addEventListener("change", show);
show();
