// Search without a server: SECTIONS (in sections.js) is indexed when the page opens. A Chinese text has no spaces, so
// each of its characters is a word, as it is for the tokenizer of BERT.
(function () {
  const HAN = /\p{Script=Han}/u;
  const words = (text) => text.replace(/\p{Script=Han}/gu, " $& ").split(/[^\p{L}\p{N}_]+/u).filter(Boolean);
  const index = new MiniSearch({ fields: ["title", "text"], storeFields: ["title", "page"], tokenize: words });
  index.addAll(SECTIONS.map((section, id) => ({ id, ...section })));
  const box = document.getElementById("search");
  const list = document.getElementById("found");

  function show() {
    list.replaceChildren();
    const asked = box.value.trim();
    if (!asked) return;
    const options = { combineWith: "AND", boost: { title: 3 }, prefix: (term) => !HAN.test(term) };
    const found = index.search(asked, options);
    for (const one of found.slice(0, 12)) {
      const link = document.createElement("a");
      link.href = one.page;
      link.textContent = one.title;
      list.appendChild(document.createElement("li")).appendChild(link);
    }
    if (!found.length) list.appendChild(document.createElement("li")).textContent = `No lesson has “${asked}”.`;
  }

  box.addEventListener("input", show);
  const asked = new URLSearchParams(location.search).get("q"); // index.html?q=padding
  if (asked) box.value = asked;
  show();
})();
