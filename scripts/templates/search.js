// Search without a server: SECTIONS (in sections.js) is indexed when the page opens. A Chinese text has no spaces between
// words: each character and each two neighbours are held as words. Of a longer word that is asked, all neighbours are
// wanted, so that 填充 does not find a text in which the two characters stand apart.
(function () {
  const HAN = /\p{Script=Han}/u;
  const words = (text) => text.replace(/\p{Script=Han}+/gu, " $& ").split(/[^\p{L}\p{N}_]+/u).filter(Boolean);
  const neighbours = ([...letters]) => letters.slice(1).map((second, place) => letters[place] + second);
  const held = (word) => (HAN.test(word) ? [...word, ...neighbours(word)] : [word]);
  const wanted = (word) => (HAN.test(word) && neighbours(word).length ? neighbours(word) : [word]);
  const index = new MiniSearch({
    fields: ["title", "text"], storeFields: ["title", "page"], tokenize: (text) => words(text).flatMap(held),
  });
  index.addAll(SECTIONS.map((section, id) => ({ id, ...section })));
  const box = document.getElementById("search");
  const list = document.getElementById("found");

  function show() {
    list.replaceChildren();
    const asked = box.value.trim();
    if (!asked) return;
    const found = index.search(asked, {
      combineWith: "AND", boost: { title: 3 }, prefix: (term) => !HAN.test(term),
      tokenize: (text) => words(text).flatMap(wanted),
    });
    for (const one of found.slice(0, 12)) {
      const link = document.createElement("a");
      link.href = one.page;
      link.textContent = one.title;
      list.appendChild(document.createElement("li")).appendChild(link);
    }
    const none = list.dataset.none.replace("{0}", () => asked);
    if (!found.length) list.appendChild(document.createElement("li")).textContent = none;
  }

  box.addEventListener("input", show);
  const asked = new URLSearchParams(location.search).get("q"); // index.html?q=padding
  if (asked) box.value = asked;
  show();
})();
