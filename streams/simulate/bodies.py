"""What simulated messages say, and how many parts that takes (3GPP TS 23.038, TS 23.040)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡¿§"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜabcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED = frozenset("\f^{}\\[~]|€")


class Text(NamedTuple):
    """A body in which every `#` becomes a digit or six, with the size it then has."""

    body: str
    encoding: str
    segments: int


def encoding_of(body: str) -> str:
    """`gsm7` when the default alphabet and its extension hold every character, else `ucs2`."""
    return "gsm7" if _GSM.union(_GSM_ESCAPED).issuperset(body) else "ucs2"


def segments_of(body: str, encoding: str) -> int:
    """Parts of an SMS; an escape pair or surrogate pair stays in one part."""
    if encoding == "gsm7":
        alone, joined, sizes = 160, 153, [1 + (char in _GSM_ESCAPED) for char in body]
    else:
        alone, joined, sizes = 70, 67, [len(char.encode("utf-16-le")) // 2 for char in body]
    if sum(sizes) <= alone:
        return 1
    parts = used = 0
    for size in sizes:
        if parts == 0 or used + size > joined:
            parts, used = parts + 1, 0
        used += size
    return parts


OTP = {
    "en": [
        "# is your Kestrel code. It expires in 10 minutes. Never share it.",
        "Your one-time passcode is #.\n\n@login.example ##",
    ],
    "fr": ["Votre code de vérification est #. Ne le communiquez à personne."],
    "de": ["Ihr Bestätigungscode lautet #. Gültig für 5 Minuten."],
    "sv": ["Din engångskod är #. Dela den inte med någon."],
    "es": ["Su código es #. No lo comparta con nadie."],
    "pt": ["Seu código de acesso é #. Válido por 10 minutos."],
    "hi": ["आपका ओटीपी # है। इसे किसी के साथ साझा न करें।"],
    "ja": ["認証コードは#です。10分以内に入力してください。"],
}
NOTICE = {
    "en": [
        "Parcel # is out for delivery today between 2 and 4 pm. Track it: https://trk.example/#",
        "Hi! Your table for 4 is booked, ref [#]. Reply C to confirm or X to cancel.",
        "Your driver is 3 stops away 🚚 Order # will be left at the front desk unless you tell us otherwise.",
        "Reminder from Alder Dental: your check-up is on Tuesday at 09:40 with Dr. Okafor. Please arrive"
        " ten minutes early and bring your insurance card. To move the visit call the desk or reply R. Ref #",
    ],
    "fr": [
        "Votre colis # arrive demain entre 9h et 12h. Modifiez le créneau : https://trk.example/#",
        "Bonjour, votre rendez-vous nº # est confirmé à 14h30 à l’accueil, 3e étage. À très bientôt !",
    ],
    "de": [
        "Ihre Sendung # wird heute zwischen 14 und 16 Uhr zugestellt. Änderungen: https://trk.example/#",
        "Erinnerung: Ihr Termin # am Freitag um 8:15 Uhr. Für einen größeren Wagen {Klasse B} fallen"
        " 12 € an; bringen Sie bitte Führerschein und Kreditkarte mit. Storno ist bis zum Vortag kostenfrei.",
    ],
    "sv": ["Ditt paket # finns att hämta. Ta med legitimation. Öppet 7–22 varje dag."],
    "es": ["Su pedido # está en camino 📦 Llega hoy antes de las 20:00. Siga el envío en https://trk.example/#"],
    "pt": ["Seu pedido # saiu para entrega. Não é você? Responda NÃO e falamos com o entregador já."],
    "hi": ["आपका ऑर्डर # आज शाम 6 बजे तक पहुँच जाएगा। बदलाव के लिए उत्तर दें।"],
    "ja": ["お荷物（#）は本日14時から16時の間にお届け予定です。変更はこちら https://trk.example/#"],
}
PROMO = {
    "en": [
        "48h flash sale 🎉 30% off everything with SAVE#. Shop: https://shop.example/# Reply STOP to opt out",
        "Members first: the autumn range is here. Use EARLY# for free shipping on any two items, and bring a"
        " friend: they get $10 ^ and you get $10. Stores open till nine tonight, online never closes. Terms"
        " apply, see https://shop.example/terms. Not for you? Reply STOP and we will not text again. For help"
        " reply HELP any time.",
    ],
    "fr": ["Ventes privées : -40 % avec le code ÉTÉ# jusqu’à dimanche minuit ☀️ STOP au 36111"],
    "de": ["Nur heute: 20% auf alle Räder mit RAD#. Größe und Farbe frei wählbar. Abmelden mit STOP"],
    "sv": ["Rea på allt för vinter! Kod FRYS# ger 150 kr rabatt. Avsluta: STOPP"],
    "es": ["¡Última oportunidad! 2x1 en toda la tienda con el cupón MX#. Válido hoy. BAJA para salir"],
    "pt": ["Promoção relâmpago ⚡ frete grátis com BR#. Só hoje! Responda SAIR para não receber mais"],
    "hi": ["दिवाली ऑफर 🪔 कोड # पर ₹500 की छूट। आज ही खरीदें।"],
    "ja": ["本日限定！クーポン#で全品20％オフ🛍️ 配信停止は「停止」と返信してください。"],
}
CHAT = {
    "en": [
        "ok see you at 6 👍", "On my way", "Can you send the photo of invoice # again please?", "lol 😂😂",
        "The quick answer is yes. The long one: the fitter comes on the #th, the paint needs two days, so"
        " the earliest you can move the desks back in is that weekend. I will text you the evening"
        " before, rain or shine 🎨",
    ],
    "fr": ["D'accord, à tout à l'heure 😊", "Oui, facture # bien reçue, merci beaucoup"],
    "de": ["Passt, bis später!", "Können wir Termin # auf nächste Woche schieben? Grüße"],
    "sv": ["Tack, ses på måndag!", "Jag är försenad ca # min"],
    "es": ["Sí, mañana a las 10 está bien 🙌", "¿Me mandas el nº # otra vez?"],
    "pt": ["Tá bom, obrigado!", "Chego em # min 🚗"],
    "hi": ["ठीक है, कल मिलते हैं 🙏"],
    "ja": ["了解です。#時に伺います。"],
}  # fmt: skip
ANSWERS = (
    "STOP", "YES", "HELP", "C", "Ja", "oui merci 🙏", "Sí", "OK 👍🏽", "はい", "Stopp", "1",
    "Où est mon colis ?", "Wrong number, I am not #", "धन्यवाद", "já recebi, nota #",
)  # fmt: skip
KINDS = {"otp": OTP, "notice": NOTICE, "promo": PROMO, "chat": CHAT}


@lru_cache
def texts(kind: str, language: str) -> tuple[Text, ...]:
    """Every text of a kind (see KINDS) in a language, sized as if each `#` were six digits."""
    sized = []
    for body in KINDS[kind][language]:
        filled = body.replace("#", "000000")
        encoding = encoding_of(filled)
        sized.append(Text(body, encoding, segments_of(filled, encoding)))
    return tuple(sized)
