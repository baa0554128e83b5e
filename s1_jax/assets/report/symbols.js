// The signs and names of LaTeX that formulas are drawn from, and how each is drawn.

const words = (text) => text.trim().split(/\s+/);
// A sign is the last character of its word, its name what stands before.
const pairs = (text) => words(text).map((pair) => [pair.slice(0, -1), pair.slice(-1)]);
const IDENTIFIERS = new Map(
  pairs(`alphaα betaβ gammaγ deltaδ epsilonϵ varepsilonε zetaζ etaη thetaθ varthetaϑ iotaι kappaκ lambdaλ muμ nuν xiξ omicronο
    piπ varpiϖ rhoρ varrhoϱ sigmaσ varsigmaς tauτ upsilonυ phiϕ varphiφ chiχ psiψ omegaω ellℓ imathı jmathȷ hbarℏ partial∂
    infty∞ emptyset∅ varnothing∅ nabla∇ forall∀ exists∃ nexists∄ Reℜ Imℑ`),
);
const UPRIGHT = new Map(
  pairs(`GammaΓ DeltaΔ ThetaΘ LambdaΛ XiΞ PiΠ SigmaΣ UpsilonΥ PhiΦ PsiΨ OmegaΩ alephℵ wp℘ angle∠ measuredangle∡ triangle△ square□
    Box□ blacksquare■ diamond⋄ Diamond◇ clubsuit♣ heartsuit♡ diamondsuit♢ spadesuit♠ sharp♯ flat♭ natural♮ checkmark✓ degree°
    top⊤ bot⊥ dag† ddag‡ S§ P¶ bigstar★ lozenge◊ complement∁ pounds£ yen¥ euro€ %% $$ ## && __`),
);
const RELATIONS = new Map(
  pairs(`le≤ leq≤ leqslant⩽ ge≥ geq≥ geqslant⩾ ne≠ neq≠ equal= lt< gt> approx≈ equiv≡ sim∼ simeq≃ cong≅ propto∝ doteq≐ ll≪ gg≫
    lesssim≲ gtrsim≳ prec≺ succ≻ preceq⪯ succeq⪰ in∈ ni∋ notin∉ subset⊂ supset⊃ subseteq⊆ supseteq⊇ subsetneq⊊ supsetneq⊋
    nsubseteq⊈ mid∣ nmid∤ parallel∥ nparallel∦ perp⊥ vdash⊢ models⊨ to→ rightarrow→ leftarrow← gets← longrightarrow⟶
    longleftarrow⟵ Rightarrow⇒ Leftarrow⇐ Longrightarrow⟹ Longleftarrow⟸ implies⟹ impliedby⟸ iff⟺ leftrightarrow↔
    Leftrightarrow⇔ Longleftrightarrow⟺ longleftrightarrow⟷ rightleftharpoons⇌ leftrightharpoons⇋ mapsto↦ longmapsto⟼
    hookrightarrow↪ uparrow↑ downarrow↓ updownarrow↕ nearrow↗ searrow↘ rightharpoonup⇀ leadsto⇝ colon: coloneqq≔ therefore∴
    because∵ asymp≍ bowtie⋈ approxeq≊ triangleq≜ leqq≦ geqq≧ nleq≰ ngeq≱`),
);
const OPERATORS = new Map(
  pairs(`times× cdot⋅ div÷ pm± mp∓ ast∗ star⋆ circ∘ bullet∙ cup∪ cap∩ setminus∖ smallsetminus∖ land∧ wedge∧ lor∨ vee∨ oplus⊕
    ominus⊖ otimes⊗ odot⊙ uplus⊎ sqcup⊔ sqcap⊓ plus+ minus− bigtriangleup△ bigtriangledown▽ triangleleft◁ triangleright▷ lhd⊲ rhd⊳ unlhd⊴ unrhd⊵
    dagger† ddagger‡ amalg⨿ wr≀ ltimes⋉ rtimes⋊`),
);
const OTHER_SIGNS = new Map(
  pairs("neg¬ lnot¬ ldots… dots… dotsc… hdots… cdots⋯ dotsb⋯ dotsm⋯ vdots⋮ ddots⋱ prime′ backprime‵ backslash\\ surd√ ldotp. cdotp⋅ slash/"),
);
const BIG = new Map(
  pairs("sum∑ prod∏ coprod∐ bigcup⋃ bigcap⋂ bigvee⋁ bigwedge⋀ bigoplus⨁ bigotimes⨂ bigodot⨀ bigsqcup⨆ biguplus⨄ int∫ iint∬ iiint∭ oint∮"),
);
const FUNCTIONS = new Set(
  words(`sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth log ln lg exp arg deg dim hom ker Pr gcd lcm det
    lim limsup liminf max min sup inf sgn mod`),
);
const LIMITED = new Set(words("gcd det lim limsup liminf max min sup inf Pr"));
// What \left, \right and \big take: commands, and characters.
const FENCES = new Map(
  pairs(`langle⟨ rangle⟩ lfloor⌊ rfloor⌋ lceil⌈ rceil⌉ lvert| rvert| vert| lVert‖ rVert‖ Vert‖ lbrace{ rbrace} lbrack[ rbrack]
    lgroup⟮ rgroup⟯ uparrow↑ downarrow↓ backslash\\ {{ }} |‖`),
);
const BRACKETS = new Map([["<", "⟨"], [">", "⟩"], [".", ""], ...[..."()[]|/"].map((one) => [one, one])]);
const SPACES = new Map(
  Object.entries({
    ",": 0.17, ":": 0.22, ">": 0.22, ";": 0.28, "!": -0.17, " ": 0.25, "/": 0, quad: 1, qquad: 2, enspace: 0.5, thinspace: 0.17,
    medspace: 0.22, thickspace: 0.28, negthinspace: -0.17, space: 0.25, hfill: 1,
  }),
);
const ABOVE = new Map(
  pairs(`bar¯ overline¯ hat^ widehat^ tilde~ widetilde~ vec→ overrightarrow→ overleftarrow← overleftrightarrow↔ dot˙ ddot¨ checkˇ
    breve˘ acute´ grave\u0060 mathring˚ overbrace⏞ overparen⏜ widearc⏜ overarc⏜`),
);
const BELOW = new Map(pairs("underline_ underbrace⏟ underparen⏝ underrightarrow→"));
const STRETCHED = new Set(
  words(`widehat widetilde overrightarrow overleftarrow overleftrightarrow overbrace overparen widearc overarc underbrace underparen
    underrightarrow`),
);
const ARROWS = new Map(pairs("xrightarrow→ xleftarrow← xRightarrow⇒ xleftrightarrow↔ xmapsto↦"));
const FRACTIONS = new Map([["frac", null], ["dfrac", "true"], ["tfrac", "false"], ["cfrac", "true"], ["sfrac", null]]);
const BINOMIALS = new Map([["binom", null], ["dbinom", "true"], ["tbinom", "false"]]);
// Of alphabets the first code point of A, of a and of 0; some letters had been given a sign before the alphabets were.
const ALPHABETS = new Map(
  Object.entries({
    mathbb: [0x1d538, 0x1d552, 0x1d7d8], mathbbm: [0x1d538, 0x1d552, 0x1d7d8], Bbb: [0x1d538, 0x1d552, 0x1d7d8],
    mathcal: [0x1d49c, 0x1d4b6], mathscr: [0x1d49c, 0x1d4b6], mathfrak: [0x1d504, 0x1d51e], frak: [0x1d504, 0x1d51e],
  }),
);
const EARLIER = { mathbb: "CℂHℍNℕPℙQℚRℝZℤ", mathcal: "BℬEℰFℱHℋIℐLℒMℳRℛeℯgℊoℴ", mathfrak: "CℭHℌIℑRℜZℨ" };
const FAMILY = { mathbbm: "mathbb", Bbb: "mathbb", mathscr: "mathcal", frak: "mathfrak" };
// What is set upright, bold or otherwise, as a class of the style sheet: fonts have no sign for every letter.
const FONTS = new Map(
  Object.entries({
    mathrm: "upright", rm: "upright", mathit: "", it: "", mathnormal: "", mathbf: "upright bold", bf: "upright bold", bold: "upright bold",
    boldsymbol: "bold", bm: "bold", pmb: "bold", mathsf: "upright sans", mathtt: "upright mono",
  }),
);
const TEXTS = new Map(
  Object.entries({
    text: "", textrm: "", mbox: "", hbox: "", textnormal: "", textup: "", textsc: "", tag: "", textbf: "bold", textit: "slanted",
    emph: "slanted", textsl: "slanted", texttt: "mono", textsf: "sans",
  }),
);
const SIZES = new Map(Object.entries({ big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3 }));
const IGNORED = new Set(
  words("displaystyle textstyle scriptstyle nonumber notag allowbreak nobreak centering normalsize small large Large tiny strut mathstrut"),
);
const IGNORED_WITH_ARGUMENT = new Set(words("label hspace hspace* vspace vspace* color"));
const TABLES = new Map(
  Object.entries({
    matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"], vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"],
    smallmatrix: ["", ""], array: ["", ""], cases: ["{", ""], dcases: ["{", ""], rcases: ["", "}"], aligned: ["", ""], align: ["", ""],
    alignat: ["", ""], alignedat: ["", ""], eqnarray: ["", ""], gather: ["", ""], gathered: ["", ""], split: ["", ""], equation: ["", ""],
    multline: ["", ""], tabular: ["", ""], flalign: ["", ""], displaymath: ["", ""], math: ["", ""], subarray: ["", ""],
  }),
);
const ALIGNED = new Set(words("aligned align alignat alignedat eqnarray split flalign lines"));

// A letter or digit of an alphabet.
function letter(alphabet, one) {
  const family = FAMILY[alphabet] ?? alphabet;
  const earlier = EARLIER[family].indexOf(one);
  if (earlier >= 0 && earlier % 2 === 0) return EARLIER[family][earlier + 1];
  const [capital, small, digit] = ALPHABETS.get(alphabet);
  const code = one.charCodeAt(0);
  const start = /[A-Z]/.test(one) ? capital - 65 : /[a-z]/.test(one) ? small - 97 : /[0-9]/.test(one) ? digit - 48 : NaN;
  return Number.isNaN(start) || start === undefined ? one : String.fromCodePoint(start + code);
}
